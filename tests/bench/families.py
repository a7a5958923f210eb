"""Worlds that the forecaster does not know, to test its ranges on: their shapes are in no part of the library."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from gpu_jobs.forecast.simulator import Truth
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.telemetry.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Makes worlds: each call another draw of the same kind."""

    name: str
    make: Callable[[list[Offer], random.Random], list[Truth]]


def pareto_starts(offers: list[Offer], rng: random.Random) -> list[Truth]:
    """Cold starts with a heavy tail: one in a hundred takes ten times the median."""
    return [_pareto(offer, rng.uniform(0.7, 1.5) * offer.cold_start_p50_s, rng.uniform(0.7, 1.4)) for offer in offers]


def _pareto(offer: Offer, median_s: float, pace: float) -> Truth:
    shape = 1.8
    scale = median_s / 2 ** (1 / shape)
    return Truth(
        offer=offer,
        start_s=lambda rng: min(1800.0, scale * rng.paretovariate(shape)),
        speed=lambda rng: pace * offer.worker_speed * rng.uniform(0.95, 1.05),
    )


def bimodal_speeds(offers: list[Offer], rng: random.Random) -> list[Truth]:
    """Some hosts are half as fast as others."""
    return [_bimodal(offer, rng.uniform(0.1, 0.4), rng.uniform(0.7, 1.4)) for offer in offers]


def _bimodal(offer: Offer, slow_share: float, pace: float) -> Truth:
    return Truth(
        offer=offer,
        start_s=lambda rng: offer.cold_start_p50_s * rng.uniform(0.8, 1.6),
        speed=lambda rng: pace * offer.worker_speed * (0.5 if rng.random() < slow_share else 1.0),
    )


def correlated_failures(offers: list[Offer], rng: random.Random) -> list[Truth]:
    """Storms of preemption that befall a whole platform at once, and GPU jobs that fail more often meanwhile."""
    return [_stormy(offer, rng) for offer in offers]


def _stormy(offer: Offer, rng: random.Random) -> Truth:
    pace, changes, at = rng.uniform(0.7, 1.4), [], 0.0
    while at < 4 * 3600:
        at += rng.expovariate(1 / 2400)
        changes.append((at, {"error_share": 0.3, "preemptions_per_hour": 1.5}))
        at += rng.uniform(300, 900)
        changes.append((at, {"error_share": 0.02, "preemptions_per_hour": 0.05}))
    return Truth(
        offer=offer,
        start_s=lambda chance: offer.cold_start_p50_s * chance.uniform(0.8, 1.6),
        speed=lambda chance: pace * offer.worker_speed * chance.uniform(0.9, 1.1),
        error_share=0.02,
        preemptions_per_hour=0.05,
        changes=tuple(changes),
    )


FAMILIES = (
    Family(name="Pareto cold starts", make=pareto_starts),
    Family(name="bimodal speeds", make=bimodal_speeds),
    Family(name="correlated failures", make=correlated_failures),
)


def measured(truths: list[Truth], rng: random.Random, num_workers: int = 25) -> dict[OfferKey, Samples]:
    """What an earlier campaign would have left of such a world: so many GPU workers of each offer, for half an hour."""
    found = {}
    for truth in truths:
        hours = num_workers * 0.5
        storms = [truth.at(rng.uniform(0, 4 * 3600)) for _ in range(12)]
        rate = sum(each.preemptions_per_hour for each in storms) / len(storms)
        failing = sum(each.error_share for each in storms) / len(storms)
        found[truth.offer.key] = Samples(
            starts_s=tuple(truth.start_s(rng) for _ in range(num_workers)),
            items_per_s=tuple(truth.speed(rng) for _ in range(num_workers)),
            orders=12,
            failed_orders=sum(rng.random() < failing for _ in range(12)),
            worker_hours=hours,
            preemptions=sum(rng.random() < rate * hours / 40 for _ in range(40)),
        )
    return found
