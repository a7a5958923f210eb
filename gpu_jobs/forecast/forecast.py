"""Forecast what a campaign will cost and when it will end, from many simulated campaigns. Pure.

Each simulated campaign first draws how the offers behave: by a resample of the measured cold starts and speeds, so that
few measurements lead to wide ranges, or, for offers without measurements, by their listed figures. Then the real
`decide` runs it. If the offers continue to behave as measured, nine of ten outcomes fall into the forecast's range.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated

from pydantic import AliasChoices, Field

from gpu_jobs.durations import duration
from gpu_jobs.forecast.simulator import (
    START,
    Draw,
    OfferBehaviour,
    SimulatedOutcome,
    SimulatedWork,
    lognormal,
    simulate,
)
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.telemetry.samples import Samples

ALL_PLATFORMS = "all platforms"
"""The name of the option that may use every platform."""
_PRIOR_SPEED_SIGMA = 0.4
"""Standard deviation of the logarithm of a speed that was not measured, relative to measured ones."""
_PRIOR_START_SIGMA = 0.3
"""Standard deviation of the logarithm of a cold start that was not measured often."""
_TICK_S = 30.0
_CHUNK_SIGMA = 0.3
_JITTER = 0.08
"""Standard deviation of the logarithm of a random factor, so that resampled values do not repeat exactly."""
_ENOUGH = 5
"""From this many measurements on, an offer's listed figures are ignored."""
_LIKELY = 0.9
"""An option is recommended only if at least this share of its simulated campaigns gets everything done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Percentiles of one figure over all simulated campaigns; nine of ten outcomes are between `p5` and `p95`.

    Forecasts that were kept by earlier versions have other names for them.
    """

    p5: Annotated[float, Field(validation_alias=AliasChoices("p5", "low"))]
    p50: Annotated[float, Field(validation_alias=AliasChoices("p50", "half"))]
    p90: Annotated[float, Field(validation_alias=AliasChoices("p90", "most"))]
    p95: Annotated[float, Field(validation_alias=AliasChoices("p95", "high"))]

    def holds(self, value: float) -> bool:
        """Whether an outcome is within the range in which nine of ten are expected."""
        return self.p5 <= value <= self.p95


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastOption:
    """One choice of platforms, a single one or all of them, with its forecast."""

    name: str
    usd: Quantiles
    finish_s: Quantiles
    complete_share: float
    """Share of the simulated campaigns that settled every item within budget and deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What to expect of each option, and which one is recommended."""

    options: Annotated[tuple[ForecastOption, ...], Field(validation_alias=AliasChoices("options", "ways"))]
    recommended: str
    why: str
    num_campaigns: int
    """Number of simulated campaigns for each option."""
    version: int = 1

    def option(self, name: str) -> ForecastOption:
        return next(option for option in self.options if option.name == name)


def forecast(
    work: SimulatedWork,
    offers: Sequence[Offer],
    policy: Policy,
    samples: Mapping[OfferKey, Samples],
    *,
    num_campaigns: int = 60,
    seed: int = 0,
    options: Sequence[str] = (),
) -> Forecast:
    """Forecast a campaign on all platforms together and on each platform alone.

    Args:
        work: The remaining work; its `item_s` must be 1, since speeds are in items per second.
        offers: The offers that may be used.
        policy: The campaign's policy; its deadline is a time on the virtual clock, which begins at `START`.
        samples: What was measured; at least one offer's speed must have been.
        num_campaigns: Number of simulated campaigns for each option.
        seed: Seed of all random draws.
        options: Names of platforms, or `ALL_PLATFORMS`; empty means all of them.
    """
    platforms = list(dict.fromkeys(offer.platform for offer in offers))
    names = list(options) or ([ALL_PLATFORMS, *platforms] if len(platforms) > 1 else platforms)
    found = []
    for name in names:
        usable = [offer for offer in offers if name in (ALL_PLATFORMS, offer.platform)]
        evidence = {key: each.evidence for key, each in samples.items() if each.items_per_s}
        outcomes = []
        for number in range(seed, seed + num_campaigns):
            behaviours = _draw_behaviours(usable, offers, samples, random.Random(number))  # noqa: S311 - a simulation
            outcomes.append(
                simulate(work, behaviours, policy, number, offers=usable, evidence=evidence, tick_s=_TICK_S)
            )
        found.append(_option(name, outcomes))
    best, why = _recommend(found, policy)
    return Forecast(options=tuple(found), recommended=best, why=why, num_campaigns=num_campaigns)


def _draw_behaviours(
    usable: Sequence[Offer], offers: Sequence[Offer], samples: Mapping[OfferKey, Samples], rng: random.Random
) -> list[OfferBehaviour]:
    unit = _unit(offers, samples, rng)
    return [_behaviour(offer, samples.get(offer.key, Samples()), unit, rng) for offer in usable]


def _unit(offers: Sequence[Offer], samples: Mapping[OfferKey, Samples], rng: random.Random) -> float:
    """Return the items per second of a GPU worker of speed 1, from a resample of all measurements."""
    known = [
        value / offer.worker_speed
        for offer in offers
        if offer.key in samples
        for value in samples[offer.key].items_per_s
    ]
    picked = rng.choices(known, k=len(known))
    return sum(picked) / len(picked)


def _behaviour(offer: Offer, found: Samples, unit: float, rng: random.Random) -> OfferBehaviour:
    hours = found.worker_hours + 1.0  # the prior weighs as much as one hour
    preemptions = rng.gammavariate(found.preemptions + offer.preemptions_per_hour + 1e-3, 1 / hours)
    failing = rng.betavariate(found.failed_orders + 0.1, found.orders - found.failed_orders + 3.0)
    return OfferBehaviour(
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
    """Return a draw from a resample of the values, each with a small random factor.

    The resample stands for the uncertainty of the measurements themselves.
    """
    picked = rng.choices(values, k=len(values))
    return lambda chance: chance.choice(picked) * chance.lognormvariate(0.0, _JITTER)


def chunk_weights() -> Draw:
    """Return a draw of how much chunks differ in duration when nothing is known about them."""
    return lambda rng: rng.lognormvariate(-(_CHUNK_SIGMA**2) / 2, _CHUNK_SIGMA)


def _option(name: str, outcomes: Sequence[SimulatedOutcome]) -> ForecastOption:
    return ForecastOption(
        name=name,
        usd=quantiles_of([outcome.usd for outcome in outcomes]),
        finish_s=quantiles_of([outcome.finish_s for outcome in outcomes]),
        complete_share=sum(outcome.is_complete for outcome in outcomes) / len(outcomes),
    )


def quantiles_of(values: Sequence[float]) -> Quantiles:
    """Return the percentiles of one or more outcomes."""
    ordered = sorted(values)
    return Quantiles(
        **{name: _quantile(ordered, share) for name, share in (("p5", 0.05), ("p50", 0.5), ("p90", 0.9), ("p95", 0.95))}
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which the next outcome falls with this probability (ranks of n + 1, not of n)."""
    at = min(max(0.0, share * (len(ordered) + 1) - 1), len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


def _recommend(options: Sequence[ForecastOption], policy: Policy) -> tuple[str, str]:
    """Return the option that suits the objective best, and why.

    Only options that get everything done in nine of ten campaigns count; without one, the most likely one is taken.
    """
    good = [option for option in options if option.complete_share >= _LIKELY]
    if not good:
        best = max(options, key=lambda option: option.complete_share)
        missed = "within budget and deadline" if policy.deadline or policy.budget_usd is not None else "to its end"
        return best.name, (
            f"no option gets everything done {missed} in nine of ten simulated campaigns; {best.name} does in "
            f"{best.complete_share:.0%}. Allow more time, more dollars or more GPU workers"
        )
    aims = {
        "cheapest": lambda option: (option.usd.p50, option.finish_s.p50),
        "fastest": lambda option: (option.finish_s.p50, option.usd.p50),
        "balanced": lambda option: (option.usd.p50 * option.finish_s.p50, option.usd.p50),
    }
    best = min(good, key=aims[policy.objective])
    others = [option for option in good if option is not best]
    expected = f"{best.name}: {_usd(best.usd)}, done in {_time(best.finish_s)}"
    if not others:
        return best.name, f"{expected}; no other option is likely to get everything done"
    second = min(others, key=aims[policy.objective])
    return best.name, f"{expected}; the next best, {second.name}: {_usd(second.usd)}, done in {_time(second.finish_s)}"


def score(expected: Forecast, usd: float, finish_s: float, *, name: str = "") -> str:
    """Return a sentence that compares the forecast of an option with its outcome.

    The option is the recommended one unless another is named.
    """
    option = expected.option(name or expected.recommended)
    return "; ".join(
        (
            _scored("dollars", option.usd, usd, f"${usd:.2f}", _usd(option.usd)),
            _scored("time", option.finish_s, finish_s, duration(finish_s), _time(option.finish_s)),
        )
    )


def _scored(what: str, expected: Quantiles, value: float, shown: str, forecast_range: str) -> str:
    off = value / expected.p50 - 1 if expected.p50 else 0.0
    inside = "within" if expected.holds(value) else "OUTSIDE"
    return f"{what}: {shown}, {off:+.0%} against the median of the forecast and {inside} its range ({forecast_range})"


def table(expected: Forecast) -> list[tuple[str, ...]]:
    """Return the forecast as rows of text, the header first."""
    header = ("option", "dollars, 50 %", "dollars, 90 %", "done in, 50 %", "done in, 90 %", "gets everything done", "")
    return [header, *(_row(option, is_best=option.name == expected.recommended) for option in expected.options)]


def _row(option: ForecastOption, *, is_best: bool) -> tuple[str, ...]:
    return (
        option.name,
        f"${option.usd.p50:.2f}",
        f"${option.usd.p90:.2f}",
        duration(option.finish_s.p50),
        duration(option.finish_s.p90),
        f"{option.complete_share:.0%}",
        "recommended" if is_best else "",
    )


def virtual(policy: Policy, seconds_left: float | None) -> Policy:
    """Return the policy with its deadline on the virtual clock."""
    return replace(policy, deadline=None if seconds_left is None else START + timedelta(seconds=seconds_left))


def _usd(expected: Quantiles) -> str:
    return f"${expected.p50:.2f}, at 90 % ${expected.p90:.2f}"


def _time(expected: Quantiles) -> str:
    return f"{duration(expected.p50)}, at 90 % {duration(expected.p90)}"
