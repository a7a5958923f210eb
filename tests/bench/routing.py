"""Compare `decide` with simpler ways on a virtual clock: prices and cold starts of real platforms, invented work.

`python -m tests.bench.routing`. The scenarios are those of `scenarios.py`, with its seeds, which tuning did not use.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from statistics import mean, quantiles
from typing import Any

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
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.offers import Offer, load_offers
from gpu_jobs.jobs.orders import Policy
from tests.bench.chunk_sizes import PER_WORKER, compare_cuts
from tests.bench.policies import fixed_order, hedging_everything, round_robin
from tests.bench.rows import report
from tests.bench.scenarios import OUTAGES, RUNPOD_FLEX_USD_PER_HOUR, THREE_CLOUDS, Cloud, ThreeClouds
from tests.bench.small_cases import Compared, SmallCase, compare, draw

CHEAPER_TARGET = 0.8
SMALL_CASES, CHUNK_CASES = range(500, 524), range(500, 508)
"""Numbers of cases; tuning used others, below 100."""


def offer_of(cloud: Cloud, scenario: ThreeClouds, usd_per_hour: float | None = None) -> Offer:
    """Return the offer in `offers.toml` with the scenario's figures."""
    known = next(
        each
        for each in load_offers()
        if (each.platform, each.gpu, each.region, each.mode, each.num_gpus)
        == (cloud.platform, cloud.gpu, cloud.region, cloud.mode, 1)
    )
    return replace(
        known,
        usd_per_hour=usd_per_hour or cloud.usd_per_hour,
        cold_start_p50_s=cloud.cold_start_p50_s,
        cold_start_p90_s=cloud.cold_start_p90_s,
        max_workers=scenario.max_workers,
        max_alive=None,
        max_hours=None,
        preemptions_per_hour=0.0,
    )


def work_of(scenario: ThreeClouds) -> SimulatedWork:
    weight = lognormal(1.0, math.exp(1.2816 * scenario.item_sigma))
    return SimulatedWork(
        num_chunks=scenario.num_chunks,
        items_per_chunk=scenario.items_per_chunk,
        item_s=scenario.item_s,
        weight=weight,
    )


class Setup:
    """A scenario with its deadline and stock computed."""

    def __init__(self, scenario: ThreeClouds, runpod_usd_per_hour: float | None = None) -> None:
        self.seeds = scenario.seeds
        self.work = work_of(scenario)
        self.free = Policy(
            platforms=(), max_workers=scenario.max_workers, objective="fastest", job_hours=24.0, is_canary_first=True
        )
        prices = {"runpod": runpod_usd_per_hour}
        behaviours = [as_offered(offer_of(cloud, scenario, prices.get(cloud.platform))) for cloud in scenario.clouds]
        fastest_s = min(
            mean(self.run([behaviour], self.free, seed).finish_s for seed in self.seeds[:5]) for behaviour in behaviours
        )
        self.deadline_s = scenario.deadline_factor * fastest_s
        self.policy = replace(self.free, objective="cheapest", deadline=START + timedelta(seconds=self.deadline_s))
        self.behaviours = [
            self._with_stock(behaviour, cloud) for behaviour, cloud in zip(behaviours, scenario.clouds, strict=True)
        ]

    def _with_stock(self, behaviour: OfferBehaviour, cloud: Cloud) -> OfferBehaviour:
        if cloud.stock_share is None:
            return behaviour
        at_work_s = self.deadline_s - cloud.cold_start_p50_s
        needed = self.work.num_items * self.work.item_s / at_work_s
        return replace(behaviour, stock=int(cloud.stock_share * needed))

    def run(
        self, behaviours: Sequence[OfferBehaviour], policy: Policy, seed: int, way: Decide = decide
    ) -> SimulatedOutcome:
        return simulate(self.work, behaviours, policy, seed, decide=way)

    def many(
        self, behaviours: Sequence[OfferBehaviour], way: Decide = decide, **changes: Any
    ) -> list[SimulatedOutcome]:
        policy = replace(self.policy, **changes)
        return [self.run(behaviours, policy, seed, way) for seed in self.seeds]


def usd(outcomes: Sequence[SimulatedOutcome]) -> float:
    return mean(each.usd for each in outcomes)


def done(outcomes: Sequence[SimulatedOutcome]) -> float:
    return mean(each.is_complete for each in outcomes)


def against_single_platforms(title: str, setup: Setup, target: float | None) -> None:
    """Compare all platforms together with the cheapest single platform that meets the deadline."""
    singles = {behaviour.offer.platform: setup.many([behaviour]) for behaviour in setup.behaviours}
    for name, outcomes in singles.items():
        report("routing", f"{title}: {name} alone, in time {done(outcomes):.0%}", usd(outcomes), "dollars")
    in_time = {name: usd(outcomes) for name, outcomes in singles.items() if done(outcomes) >= 0.9}
    mixed = setup.many(setup.behaviours)
    for name, way in (("fixed order", fixed_order), ("round robin", round_robin)):
        outcomes = setup.many(setup.behaviours, way)
        report("routing", f"{title}: {name}, in time {done(outcomes):.0%}", usd(outcomes), "dollars")
    best = min(in_time, key=in_time.__getitem__)
    report(
        "routing", f"{title}: all platforms, in time {done(mixed):.0%}; saved", 1 - usd(mixed) / in_time[best], "share",
        anchor=f"{best} alone, the cheapest that meets the deadline", ratio=usd(mixed) / in_time[best],
        target=None if target is None else 1 - target,
    )  # fmt: skip
    report("routing", f"{title}: all platforms", usd(mixed), "dollars")


def against_brute_force(setup: Setup) -> None:
    """Compare a small version of the scenario, and random cases, with the best static assignment in hindsight."""
    fixed = SmallCase(
        work=replace(setup.work, num_chunks=60),
        behaviours=tuple(replace(behaviour, stock=4 if behaviour.stock else None) for behaviour in setup.behaviours),
        policy=replace(
            setup.policy, max_workers=12, deadline=START + timedelta(seconds=1800), is_canary_first=False
        ),
        seeds=setup.seeds[:6],
    )  # fmt: skip
    drawn = [draw(setup.behaviours, number) for number in SMALL_CASES]
    found = [each for case in (fixed, *drawn) if (each := compare(case))]
    _report_cases("small case of the scenario", found[:1])
    _report_cases(f"{len(found) - 1} small cases at random", found[1:])


def _report_cases(title: str, cases: Sequence[Compared]) -> None:
    anchor = "the best static assignment, by brute force in hindsight"
    known = [each.known_usd / each.best_usd for each in cases], mean(each.known_in_time for each in cases)
    unknown = [each.unknown_usd / each.best_usd for each in cases], mean(each.unknown_in_time for each in cases)
    for name, (ratios, in_time) in (("speeds known", known), ("canaries", unknown)):
        row = f"{title}, {name}, in time {in_time:.0%}: dollars"
        report("routing", f"{row}, mean", mean(ratios), "ratio", anchor=anchor, ratio=mean(ratios))
        report("routing", f"{row}, worst", max(ratios), "ratio", anchor=anchor, ratio=max(ratios))


def chunk_sizes(setup: Setup) -> None:
    """Compare the best of seven chunk sizes, chosen in hindsight, with the size that is chosen beforehand."""
    found = [compare_cuts(draw(setup.behaviours, number)) for number in CHUNK_CASES]
    ratios = [each.best_usd / each.chosen_usd for each in found]
    row = f"the best of {len(PER_WORKER)} sizes of chunks, {len(found)} small cases: dollars"
    anchor = "the size that is chosen"
    report("routing", f"{row}, mean", mean(ratios), "ratio", anchor=anchor, ratio=mean(ratios), target=0.95)
    report("routing", f"{row}, worst", min(ratios), "ratio", anchor=anchor, ratio=min(ratios))


def outages(setup: Setup) -> None:
    """Simulate each outage of the cheapest platform."""
    start, end = 0.1 * setup.deadline_s, (0.1 + 1 / 3) * setup.deadline_s
    runpod = next(behaviour for behaviour in setup.behaviours if behaviour.offer.platform == "runpod")
    expensive = replace(runpod.offer, usd_per_hour=4 * runpod.offer.usd_per_hour)
    slow = lognormal(900.0, 1500.0)
    changes: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "hard down": ({"is_down": True}, {"is_down": False}),
        "30 % errors": ({"error_share": 0.3}, {"error_share": 0.0}),
        "slow start": ({"start_s": slow}, {"start_s": runpod.start_s}),
        "quota": ({"stock": 0, "refusal": Failure.QUOTA}, {"stock": runpod.stock, "refusal": Failure.NO_CAPACITY}),
        "preemption storm": ({"preemptions_per_hour": 6.0}, {"preemptions_per_hour": 0.0}),
        "price change": ({"offer": expensive}, {"offer": runpod.offer}),
    }
    for name in OUTAGES:
        begins, ends = changes[name]
        since = 0.0 if name in ("hard down", "30 % errors", "slow start", "quota") else start
        broken = replace(runpod, changes=((since, begins), (end, ends)))
        behaviours = [broken if behaviour is runpod else behaviour for behaviour in setup.behaviours]
        _outage(setup, name, behaviours)


def _outage(setup: Setup, name: str, behaviours: Sequence[OfferBehaviour]) -> None:
    ways: list[tuple[str, Decide, Sequence[OfferBehaviour]]] = [
        ("all platforms", decide, behaviours),
        ("fixed order", fixed_order, behaviours),
        ("round robin", round_robin, behaviours),
        *((f"{behaviour.offer.platform} alone", decide, [behaviour]) for behaviour in behaviours),
    ]
    for way, how, used in ways:
        outcomes = [setup.run(used, setup.policy, seed, how) for seed in setup.seeds[:8]]
        title = f"{name}: {way}, in time {done(outcomes):.0%}"
        report("routing", f"{title}: dollars", usd(outcomes), "dollars")
        report("routing", f"{title}: minutes", mean(each.finish_s for each in outcomes) / 60, "minutes")
        if way == "all platforms":
            worst = max(each.refused["runpod"] for each in outcomes)
            report("routing", f"{title}: most refused orders", worst, "orders")


def tails(setup: Setup) -> None:
    """Compare waiting with second attempts: single heavy-tailed items, and one host in twenty is ten times slower."""
    behaviour = replace(setup.behaviours[1], speed=lambda rng: 0.1 if rng.random() < 0.05 else 1.0)
    work = SimulatedWork(
        num_chunks=400, items_per_chunk=1, item_s=60.0, weight=lambda rng: min(20.0, rng.paretovariate(1.5) / 3)
    )
    base = replace(setup.free, max_workers=40, objective="cheapest")
    seeds = range(9100, 9160)
    ways: list[tuple[str, Decide, float]] = [
        ("no action", decide, 0.0),
        ("hedge budget 5 %", decide, 0.05),
        ("hedging everything", hedging_everything, 0.0),
    ]
    for name, way, share in ways:
        outcomes = [simulate(work, [behaviour], replace(base, hedge_share=share), seed, decide=way) for seed in seeds]
        report("routing", f"tail, {name}: p99 finish", quantiles([each.finish_s for each in outcomes], n=100)[98], "s")
        report("routing", f"tail, {name}: dollars", usd(outcomes), "dollars")


def main() -> None:
    setup = Setup(THREE_CLOUDS)
    report("routing", "deadline", setup.deadline_s, "s")
    against_single_platforms("three clouds", setup, CHEAPER_TARGET)
    against_single_platforms("three clouds, RunPod flex price", Setup(THREE_CLOUDS, RUNPOD_FLEX_USD_PER_HOUR), None)
    against_brute_force(setup)
    chunk_sizes(setup)
    outages(setup)
    tails(setup)


if __name__ == "__main__":
    main()
