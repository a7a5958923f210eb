"""Compare `decide` with the best static assignment, found by brute force, on small random cases.

The best is chosen in hindsight, on the same seeds that it is scored on, so no way of deciding beforehand can always be
as good. Each case has random prices, cold starts, stock, work, GPU worker limit and deadline.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import product
from statistics import mean

from gpu_jobs.dispatch import decide
from gpu_jobs.forecast.simulator import (
    START,
    Decide,
    OfferBehaviour,
    SimulatedOutcome,
    SimulatedWork,
    as_offered,
    lognormal,
    simulate,
)
from gpu_jobs.jobs.offers import OfferKey
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.telemetry.samples import Evidence
from tests.bench.policies import static

_SEEDS = range(4)
_EARLIER_WORKERS, _EARLIER_S = 20, 1800.0
_TICK_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallCase:
    """A campaign of a few minutes on a few GPU workers."""

    work: SimulatedWork
    behaviours: tuple[OfferBehaviour, ...]
    policy: Policy
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What one case costs, by way of deciding."""

    best_usd: float
    known_usd: float
    """Dollars with `decide`, when earlier campaigns have measured the offers."""
    known_in_time: float
    unknown_usd: float
    """Dollars with `decide`, with canaries and nothing measured before."""
    unknown_in_time: float


def draw(offers: Iterable[OfferBehaviour], number: int) -> SmallCase:
    """Return the case with this number: the offers with random prices, cold starts and stock, and random work."""
    rng = random.Random(number)
    behaviours = tuple(_another(behaviour, rng) for behaviour in offers)
    work = SimulatedWork(
        num_chunks=rng.randint(24, 80),
        items_per_chunk=20,
        item_s=rng.uniform(4.0, 12.0),
        weight=lognormal(1.0, rng.uniform(1.1, 1.6)),
    )
    max_workers = rng.randint(4, 9)
    shortest_s = work.num_items * work.item_s / max_workers + 200
    deadline = None if rng.random() < 0.25 else START + timedelta(seconds=shortest_s * rng.uniform(1.15, 2.5))
    policy = Policy(
        platforms=(), max_workers=max_workers, objective="cheapest", deadline=deadline, job_hours=24.0,
    )  # fmt: skip
    return SmallCase(
        work=work, behaviours=behaviours, policy=policy, seeds=tuple(1000 * number + seed for seed in _SEEDS)
    )


def _another(behaviour: OfferBehaviour, rng: random.Random) -> OfferBehaviour:
    offer = behaviour.offer
    start_s = offer.cold_start_p50_s * rng.uniform(0.6, 1.6)
    other = replace(
        offer,
        usd_per_hour=offer.usd_per_hour * rng.uniform(0.6, 1.6),
        cold_start_p50_s=start_s,
        cold_start_p90_s=start_s * rng.uniform(1.3, 3.0),
    )
    return replace(as_offered(other), stock=rng.choice((None, 2, 3, 4)))


def compare(case: SmallCase) -> Compared | None:
    """Compare brute force with `decide`; None if no static assignment is always in time."""
    platforms = [behaviour.offer.platform for behaviour in case.behaviours]
    most = [min(case.policy.max_workers, behaviour.stock or case.policy.max_workers) for behaviour in case.behaviours]
    found = []
    for counts in product(*(range(each + 1) for each in most)):
        if 0 < sum(counts) <= case.policy.max_workers:
            outcomes = run(case, static(dict(zip(platforms, counts, strict=True))))
            if all(each.is_complete for each in outcomes):
                found.append(_usd(outcomes))
    if not found:
        return None
    known = run(case, decide, earlier(case.behaviours, case.work))
    unknown = run(replace(case, policy=replace(case.policy, is_canary_first=True)), decide)
    return Compared(
        best_usd=min(found),
        known_usd=_usd(known),
        known_in_time=_in_time(known),
        unknown_usd=_usd(unknown),
        unknown_in_time=_in_time(unknown),
    )


def earlier(behaviours: Iterable[OfferBehaviour], work: SimulatedWork) -> dict[OfferKey, Evidence]:
    """Return what an earlier campaign measured: speeds and cold starts of twenty GPU workers, each for half an hour."""
    rng, found = random.Random(5), {}
    for behaviour in behaviours:
        pace = sum(behaviour.speed(rng) for _ in range(_EARLIER_WORKERS)) / work.item_s
        found[behaviour.offer.key] = Evidence(
            items=pace * _EARLIER_S,
            working_s=_EARLIER_WORKERS * _EARLIER_S,
            starts=_EARLIER_WORKERS,
            start_s=sum(behaviour.start_s(rng) for _ in range(_EARLIER_WORKERS)),
        )
    return found


def run(case: SmallCase, way: Decide, evidence: Mapping[OfferKey, Evidence] | None = None) -> list[SimulatedOutcome]:
    return [
        simulate(case.work, case.behaviours, case.policy, seed, evidence=evidence, decide=way, tick_s=_TICK_S)
        for seed in case.seeds
    ]


def _usd(outcomes: list[SimulatedOutcome]) -> float:
    return mean(each.usd for each in outcomes)


def _in_time(outcomes: list[SimulatedOutcome]) -> float:
    return mean(each.is_complete for each in outcomes)
