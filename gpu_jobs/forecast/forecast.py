"""What a campaign will cost and when it will end: many simulated campaigns, from what was measured. Pure.

Each simulated campaign first draws its world: a resample of the measured cold starts and speeds, so that few
measurements make wide ranges, and offers that were never measured by their priors. Then the real `decide` runs it. The
range that is told holds nine outcomes of ten if the world goes on as it was measured.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from gpu_jobs.durations import duration
from gpu_jobs.forecast.simulator import START, Draw, Outcome, Truth, Work, lognormal, simulate
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.telemetry.samples import Samples

MIX = "mix"
_PRIOR_SPEED_SIGMA = 0.4
"""Of the logarithm of a speed that was never measured, against one that was."""
_PRIOR_START_SIGMA = 0.3
_TICK_S = 30.0
_CHUNK_SIGMA = 0.3
_JITTER = 0.08
"""Of the logarithm; resampled values are not repeated exactly."""
_ENOUGH = 5
"""Measurements of an offer from which its priors count no more."""
_LOW, _HALF, _HIGH, _HIGHEST = 0.05, 0.5, 0.9, 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Of one figure: half of the outcomes are below `half`, nine of ten below `most`, and nine of ten in between."""

    low: float
    half: float
    most: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One platform alone, or the mix of all."""

    name: str
    usd: Range
    finish_s: Range
    complete_share: float
    """Of the simulated campaigns, those that settled every item, within budget and deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What to expect, and what is recommended."""

    ways: tuple[Way, ...]
    recommended: str
    why: str
    num_campaigns: int
    """That were simulated for each way."""
    version: int = 1

    def way(self, name: str) -> Way:
        return next(way for way in self.ways if way.name == name)


def forecast(
    work: Work,
    offers: Sequence[Offer],
    policy: Policy,
    samples: Mapping[OfferKey, Samples],
    *,
    num_campaigns: int = 60,
    seed: int = 0,
    ways: Sequence[str] = (),
) -> Forecast:
    """Simulate the mix and each platform alone.

    Args:
        work: what is left; its `item_s` must be 1, since speeds are items a second.
        offers: that may be used.
        policy: of the campaign; its deadline counts from `START`.
        samples: at least one offer's speeds must have been measured.
        num_campaigns: simulated for each way.
        seed: of all chance.
        ways: names of platforms or `MIX`; empty: all.
    """
    platforms = list(dict.fromkeys(offer.platform for offer in offers))
    names = list(ways) or ([MIX, *platforms] if len(platforms) > 1 else platforms)
    found = []
    for name in names:
        usable = [offer for offer in offers if name in (MIX, offer.platform)]
        evidence = {key: each.evidence for key, each in samples.items() if each.items_per_s}
        outcomes = []
        for number in range(seed, seed + num_campaigns):
            truths = _draw_world(usable, offers, samples, random.Random(number))  # noqa: S311 - a simulation
            outcomes.append(simulate(work, truths, policy, number, offers=usable, evidence=evidence, tick_s=_TICK_S))
        found.append(_way(name, outcomes))
    best, why = _recommend(found, policy)
    return Forecast(ways=tuple(found), recommended=best, why=why, num_campaigns=num_campaigns)


def _draw_world(
    usable: Sequence[Offer], offers: Sequence[Offer], samples: Mapping[OfferKey, Samples], rng: random.Random
) -> list[Truth]:
    unit = _unit(offers, samples, rng)
    return [_truth(offer, samples.get(offer.key, Samples()), unit, rng) for offer in usable]


def _unit(offers: Sequence[Offer], samples: Mapping[OfferKey, Samples], rng: random.Random) -> float:
    """Items a second of a GPU worker of speed 1, by a resample of all that was measured."""
    known = [
        value / offer.worker_speed
        for offer in offers
        if offer.key in samples
        for value in samples[offer.key].items_per_s
    ]
    picked = rng.choices(known, k=len(known))
    return sum(picked) / len(picked)


def _truth(offer: Offer, found: Samples, unit: float, rng: random.Random) -> Truth:
    hours = found.worker_hours + 1.0  # an hour's weight for the prior
    preemptions = rng.gammavariate(found.preemptions + offer.preemptions_per_hour + 1e-3, 1 / hours)
    failing = rng.betavariate(found.failed_orders + 0.1, found.orders - found.failed_orders + 3.0)
    return Truth(
        offer=offer,
        start_s=_starts(offer, found, rng),
        speed=_speeds(offer, found, unit, rng),
        stock=offer.max_alive,
        error_share=failing,
        preemptions_per_hour=preemptions,
    )


def _starts(offer: Offer, found: Samples, rng: random.Random) -> Draw:
    if len(found.starts_s) < _ENOUGH:
        shift = rng.lognormvariate(0.0, _PRIOR_START_SIGMA)
        known = [*found.starts_s]
        p50 = (sum(known) + offer.cold_start_p50_s) / (len(known) + 1) if known else offer.cold_start_p50_s
        spread = offer.cold_start_p90_s / offer.cold_start_p50_s if offer.cold_start_p50_s else 1.0
        return lognormal(p50 * shift, p50 * shift * spread)
    return _resampled(found.starts_s, rng)


def _speeds(offer: Offer, found: Samples, unit: float, rng: random.Random) -> Draw:
    if len(found.items_per_s) >= _ENOUGH:
        return _resampled(found.items_per_s, rng)
    shift = rng.lognormvariate(0.0, _PRIOR_SPEED_SIGMA / (1 + len(found.items_per_s)) ** 0.5)
    known = found.items_per_s
    mean = sum(known) / len(known) if known else unit * offer.worker_speed * shift
    return lognormal(mean, mean * 1.15)


def _resampled(values: Sequence[float], rng: random.Random) -> Draw:
    """Draws from a resample of the values, so that their own uncertainty counts; each a little off."""
    picked = rng.choices(values, k=len(values))
    return lambda chance: chance.choice(picked) * chance.lognormvariate(0.0, _JITTER)


def chunk_weights() -> Draw:
    """How chunks differ when nothing else is known of them."""
    return lambda rng: rng.lognormvariate(-(_CHUNK_SIGMA**2) / 2, _CHUNK_SIGMA)


def _way(name: str, outcomes: Sequence[Outcome]) -> Way:
    return Way(
        name=name,
        usd=quantile_range([outcome.usd for outcome in outcomes]),
        finish_s=quantile_range([outcome.finish_s for outcome in outcomes]),
        complete_share=sum(outcome.is_complete for outcome in outcomes) / len(outcomes),
    )


def quantile_range(values: Sequence[float]) -> Range:
    """The range of some outcomes, at least one."""
    ordered = sorted(values)
    return Range(
        **{
            name: _quantile(ordered, share)
            for name, share in (("low", _LOW), ("half", _HALF), ("most", _HIGH), ("high", _HIGHEST))
        }
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Below which the next outcome falls with this chance, if it is one of their kind: by rank of n + 1, not of n."""
    at = min(max(0.0, share * (len(ordered) + 1) - 1), len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


def _recommend(ways: Sequence[Way], policy: Policy) -> tuple[str, str]:
    """The way that aims best, of those that get everything done nine times of ten; else the likeliest."""
    good = [way for way in ways if way.complete_share >= _HIGH]
    if not good:
        best = max(ways, key=lambda way: way.complete_share)
        missed = "within budget and deadline" if policy.deadline or policy.budget_usd is not None else "to its end"
        return best.name, (
            f"no way gets everything done {missed} in nine of ten simulated campaigns; {best.name} does in "
            f"{best.complete_share:.0%}. Allow more time, more dollars or more GPU workers"
        )
    aims = {
        "cheapest": lambda way: (way.usd.half, way.finish_s.half),
        "fastest": lambda way: (way.finish_s.half, way.usd.half),
        "balanced": lambda way: (way.usd.half * way.finish_s.half, way.usd.half),
    }
    best = min(good, key=aims[policy.objective])
    others = [way for way in good if way is not best]
    told = f"{best.name}: {_usd(best.usd)}, done in {_time(best.finish_s)}"
    if not others:
        return best.name, f"{told}; no other way is likely to get everything done"
    second = min(others, key=aims[policy.objective])
    return best.name, f"{told}; the next best, {second.name}: {_usd(second.usd)}, done in {_time(second.finish_s)}"


def score(told: Forecast, usd: float, finish_s: float, *, name: str = "") -> str:
    """How the forecast of a way (the recommended one, if not named) has turned out, in a sentence."""
    way = told.way(name or told.recommended)
    return "; ".join(
        (
            _scored("dollars", way.usd, usd, f"${usd:.2f}", _usd(way.usd)),
            _scored("time", way.finish_s, finish_s, duration(finish_s), _time(way.finish_s)),
        )
    )


def _scored(what: str, expected: Range, value: float, shown: str, told: str) -> str:
    off = value / expected.half - 1 if expected.half else 0.0
    inside = "within" if expected.holds(value) else "OUTSIDE"
    return f"{what}: {shown}, {off:+.0%} against the middle of the forecast and {inside} its range ({told})"


def table(told: Forecast) -> list[tuple[str, ...]]:
    """The forecast as rows of texts, header first."""
    header = ("way", "dollars, 50 %", "dollars, 90 %", "done in, 50 %", "done in, 90 %", "gets everything done", "")
    return [header, *(_row(way, is_best=way.name == told.recommended) for way in told.ways)]


def _row(way: Way, *, is_best: bool) -> tuple[str, ...]:
    return (
        way.name,
        f"${way.usd.half:.2f}",
        f"${way.usd.most:.2f}",
        duration(way.finish_s.half),
        duration(way.finish_s.most),
        f"{way.complete_share:.0%}",
        "recommended" if is_best else "",
    )


def virtual(policy: Policy, seconds_left: float | None) -> Policy:
    """The policy with its deadline on the virtual clock."""
    return replace(policy, deadline=None if seconds_left is None else START + timedelta(seconds=seconds_left))


def _usd(expected: Range) -> str:
    return f"${expected.half:.2f}, at 90 % ${expected.most:.2f}"


def _time(expected: Range) -> str:
    return f"{duration(expected.half)}, at 90 % {duration(expected.most)}"
