"""What `decide` costs against simpler ways, on a virtual clock: prices and cold starts of real platforms, made-up work.

`python -m tests.bench.routing`. The scenarios are those of `scenarios.py`, with its seeds, which tuning did not use.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from statistics import mean, quantiles
from typing import Any

from gpu_jobs.dispatch import decide
from gpu_jobs.forecast.simulator import START, Decide, Outcome, Truth, Work, as_offered, lognormal, simulate
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
"""Tuning used others, below 100."""


def offer_of(cloud: Cloud, scenario: ThreeClouds, usd_per_hour: float | None = None) -> Offer:
    """The offer of `offers.toml` with the scenario's figures."""
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


def work_of(scenario: ThreeClouds) -> Work:
    weight = lognormal(1.0, math.exp(1.2816 * scenario.item_sigma))
    return Work(
        num_chunks=scenario.num_chunks,
        items_per_chunk=scenario.items_per_chunk,
        item_s=scenario.item_s,
        weight=weight,
    )


class Scene:
    """A scenario with its deadline and stock worked out."""

    def __init__(self, scenario: ThreeClouds, runpod_usd_per_hour: float | None = None) -> None:
        self.seeds = scenario.seeds
        self.work = work_of(scenario)
        self.free = Policy(
            platforms=(), max_workers=scenario.max_workers, objective="fastest", job_hours=24.0, is_canary_first=True
        )
        prices = {"runpod": runpod_usd_per_hour}
        truths = [as_offered(offer_of(cloud, scenario, prices.get(cloud.platform))) for cloud in scenario.clouds]
        fastest_s = min(
            mean(self.run([truth], self.free, seed).finish_s for seed in self.seeds[:5]) for truth in truths
        )
        self.deadline_s = scenario.deadline_factor * fastest_s
        self.policy = replace(self.free, objective="cheapest", deadline=START + timedelta(seconds=self.deadline_s))
        self.truths = [self._with_stock(truth, cloud) for truth, cloud in zip(truths, scenario.clouds, strict=True)]

    def _with_stock(self, truth: Truth, cloud: Cloud) -> Truth:
        if cloud.stock_share is None:
            return truth
        at_work_s = self.deadline_s - cloud.cold_start_p50_s
        needed = self.work.num_items * self.work.item_s / at_work_s
        return replace(truth, stock=int(cloud.stock_share * needed))

    def run(self, truths: Sequence[Truth], policy: Policy, seed: int, way: Decide = decide) -> Outcome:
        return simulate(self.work, truths, policy, seed, decide=way)

    def many(self, truths: Sequence[Truth], way: Decide = decide, **changes: Any) -> list[Outcome]:
        policy = replace(self.policy, **changes)
        return [self.run(truths, policy, seed, way) for seed in self.seeds]


def usd(outcomes: Sequence[Outcome]) -> float:
    return mean(each.usd for each in outcomes)


def done(outcomes: Sequence[Outcome]) -> float:
    return mean(each.is_complete for each in outcomes)


def against_single_platforms(title: str, scene: Scene, target: float | None) -> None:
    """The mix against the cheapest single platform that meets the deadline."""
    singles = {truth.offer.platform: scene.many([truth]) for truth in scene.truths}
    for name, outcomes in singles.items():
        report("routing", f"{title}: {name} alone, in time {done(outcomes):.0%}", usd(outcomes), "dollars")
    in_time = {name: usd(outcomes) for name, outcomes in singles.items() if done(outcomes) >= 0.9}
    mixed = scene.many(scene.truths)
    for name, way in (("fixed order", fixed_order), ("round robin", round_robin)):
        outcomes = scene.many(scene.truths, way)
        report("routing", f"{title}: {name}, in time {done(outcomes):.0%}", usd(outcomes), "dollars")
    best = min(in_time, key=in_time.__getitem__)
    report(
        "routing", f"{title}: mix, in time {done(mixed):.0%}; saved", 1 - usd(mixed) / in_time[best], "share",
        anchor=f"{best} alone, the cheapest that meets the deadline", ratio=usd(mixed) / in_time[best],
        target=None if target is None else 1 - target,
    )  # fmt: skip
    report("routing", f"{title}: mix", usd(mixed), "dollars")


def against_brute_force(scene: Scene) -> None:
    """The scenario made small, and cases drawn at random, against the best static assignment in hindsight."""
    fixed = SmallCase(
        work=replace(scene.work, num_chunks=60),
        truths=tuple(replace(truth, stock=4 if truth.stock else None) for truth in scene.truths),
        policy=replace(
            scene.policy, max_workers=12, deadline=START + timedelta(seconds=1800), is_canary_first=False
        ),
        seeds=scene.seeds[:6],
    )  # fmt: skip
    drawn = [draw(scene.truths, number) for number in SMALL_CASES]
    found = [each for case in (fixed, *drawn) if (each := compare(case))]
    _told("small case of the scenario", found[:1])
    _told(f"{len(found) - 1} small cases at random", found[1:])


def _told(title: str, cases: Sequence[Compared]) -> None:
    anchor = "the best static assignment, by brute force in hindsight"
    known = [each.known_usd / each.best_usd for each in cases], mean(each.known_in_time for each in cases)
    unknown = [each.unknown_usd / each.best_usd for each in cases], mean(each.unknown_in_time for each in cases)
    for name, (ratios, in_time) in (("speeds known", known), ("canaries", unknown)):
        row = f"{title}, {name}, in time {in_time:.0%}: dollars"
        report("routing", f"{row}, mean", mean(ratios), "ratio", anchor=anchor, ratio=mean(ratios))
        report("routing", f"{row}, worst", max(ratios), "ratio", anchor=anchor, ratio=max(ratios))


def chunk_sizes(scene: Scene) -> None:
    """What the best of seven sizes of chunks costs, in hindsight, against the size that is chosen."""
    found = [compare_cuts(draw(scene.truths, number)) for number in CHUNK_CASES]
    ratios = [each.best_usd / each.chosen_usd for each in found]
    row = f"the best of {len(PER_WORKER)} sizes of chunks, {len(found)} small cases: dollars"
    anchor = "the size that is chosen"
    report("routing", f"{row}, mean", mean(ratios), "ratio", anchor=anchor, ratio=mean(ratios), target=0.95)
    report("routing", f"{row}, worst", min(ratios), "ratio", anchor=anchor, ratio=min(ratios))


def outages(scene: Scene) -> None:
    """One outage each, of the cheapest platform."""
    start, end = 0.1 * scene.deadline_s, (0.1 + 1 / 3) * scene.deadline_s
    runpod = next(truth for truth in scene.truths if truth.offer.platform == "runpod")
    dear = replace(runpod.offer, usd_per_hour=4 * runpod.offer.usd_per_hour)
    slow = lognormal(900.0, 1500.0)
    changes: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "hard down": ({"is_down": True}, {"is_down": False}),
        "30 % errors": ({"error_share": 0.3}, {"error_share": 0.0}),
        "slow start": ({"start_s": slow}, {"start_s": runpod.start_s}),
        "quota": ({"stock": 0, "refusal": Failure.QUOTA}, {"stock": runpod.stock, "refusal": Failure.NO_CAPACITY}),
        "preemption storm": ({"preemptions_per_hour": 6.0}, {"preemptions_per_hour": 0.0}),
        "price change": ({"offer": dear}, {"offer": runpod.offer}),
    }
    for name in OUTAGES:
        begins, ends = changes[name]
        since = 0.0 if name in ("hard down", "30 % errors", "slow start", "quota") else start
        broken = replace(runpod, changes=((since, begins), (end, ends)))
        truths = [broken if truth is runpod else truth for truth in scene.truths]
        _outage(scene, name, truths)


def _outage(scene: Scene, name: str, truths: Sequence[Truth]) -> None:
    ways: list[tuple[str, Decide, Sequence[Truth]]] = [
        ("mix", decide, truths),
        ("fixed order", fixed_order, truths),
        ("round robin", round_robin, truths),
        *((f"{truth.offer.platform} alone", decide, [truth]) for truth in truths),
    ]
    for way, how, used in ways:
        outcomes = [scene.run(used, scene.policy, seed, how) for seed in scene.seeds[:8]]
        title = f"{name}: {way}, in time {done(outcomes):.0%}"
        report("routing", f"{title}: dollars", usd(outcomes), "dollars")
        report("routing", f"{title}: minutes", mean(each.finish_s for each in outcomes) / 60, "minutes")
        if way == "mix":
            worst = max(each.refused["runpod"] for each in outcomes)
            report("routing", f"{title}: most orders in vain", worst, "orders")


def tails(scene: Scene) -> None:
    """Lone heavy-tailed items on hosts of which one in twenty is ten times slower: waiting against second attempts."""
    truth = replace(scene.truths[1], speed=lambda rng: 0.1 if rng.random() < 0.05 else 1.0)
    work = Work(
        num_chunks=400, items_per_chunk=1, item_s=60.0, weight=lambda rng: min(20.0, rng.paretovariate(1.5) / 3)
    )
    base = replace(scene.free, max_workers=40, objective="cheapest")
    seeds = range(9100, 9160)
    ways: list[tuple[str, Decide, float]] = [
        ("no action", decide, 0.0),
        ("hedge budget 5 %", decide, 0.05),
        ("hedging everything", hedging_everything, 0.0),
    ]
    for name, way, share in ways:
        outcomes = [simulate(work, [truth], replace(base, hedge_share=share), seed, decide=way) for seed in seeds]
        report("routing", f"tail, {name}: p99 finish", quantiles([each.finish_s for each in outcomes], n=100)[98], "s")
        report("routing", f"tail, {name}: dollars", usd(outcomes), "dollars")


def main() -> None:
    scene = Scene(THREE_CLOUDS)
    report("routing", "deadline", scene.deadline_s, "s")
    against_single_platforms("three clouds", scene, CHEAPER_TARGET)
    against_single_platforms("three clouds, RunPod flex price", Scene(THREE_CLOUDS, RUNPOD_FLEX_USD_PER_HOUR), None)
    against_brute_force(scene)
    chunk_sizes(scene)
    outages(scene)
    tails(scene)


if __name__ == "__main__":
    main()
