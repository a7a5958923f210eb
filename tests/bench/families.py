"""Kinds of behaviour of offers that the library does not model, to test the ranges of forecasts."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from gpu_jobs.forecast.simulator import OfferBehaviour
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.telemetry.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One kind of behaviour; each call of `make` is another random draw."""

    name: str
    make: Callable[[list[Offer], random.Random], list[OfferBehaviour]]


def pareto_starts(offers: list[Offer], rng: random.Random) -> list[OfferBehaviour]:
    """Return offers with heavy-tailed cold starts: one in a hundred takes ten times the median."""
    return [_pareto(offer, rng.uniform(0.7, 1.5) * offer.cold_start_p50_s, rng.uniform(0.7, 1.4)) for offer in offers]


def _pareto(offer: Offer, median_s: float, pace: float) -> OfferBehaviour:
    shape = 1.8
    scale = median_s / 2 ** (1 / shape)
    return OfferBehaviour(
        offer=offer,
        start_s=lambda rng: min(1800.0, scale * rng.paretovariate(shape)),
        speed=lambda rng: pace * offer.worker_speed * rng.uniform(0.95, 1.05),
    )


def bimodal_speeds(offers: list[Offer], rng: random.Random) -> list[OfferBehaviour]:
    """Return offers with some hosts that are half as fast as the others."""
    return [_bimodal(offer, rng.uniform(0.1, 0.4), rng.uniform(0.7, 1.4)) for offer in offers]


def _bimodal(offer: Offer, slow_share: float, pace: float) -> OfferBehaviour:
    return OfferBehaviour(
        offer=offer,
        start_s=lambda rng: offer.cold_start_p50_s * rng.uniform(0.8, 1.6),
        speed=lambda rng: pace * offer.worker_speed * (0.5 if rng.random() < slow_share else 1.0),
    )


def correlated_failures(offers: list[Offer], rng: random.Random) -> list[OfferBehaviour]:
    """Return offers with periods in which many GPU workers of a platform are preempted and more GPU jobs fail."""
    return [_stormy(offer, rng) for offer in offers]


def _stormy(offer: Offer, rng: random.Random) -> OfferBehaviour:
    pace, changes, at = rng.uniform(0.7, 1.4), [], 0.0
    while at < 4 * 3600:
        at += rng.expovariate(1 / 2400)
        changes.append((at, {"error_share": 0.3, "preemptions_per_hour": 1.5}))
        at += rng.uniform(300, 900)
        changes.append((at, {"error_share": 0.02, "preemptions_per_hour": 0.05}))
    return OfferBehaviour(
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


def measured(behaviours: list[OfferBehaviour], rng: random.Random, num_workers: int = 25) -> dict[OfferKey, Samples]:
    """Return what an earlier campaign would have measured: `num_workers` GPU workers of each offer for half an hour."""
    found = {}
    for behaviour in behaviours:
        hours = num_workers * 0.5
        storms = [behaviour.at(rng.uniform(0, 4 * 3600)) for _ in range(12)]
        rate = sum(each.preemptions_per_hour for each in storms) / len(storms)
        failing = sum(each.error_share for each in storms) / len(storms)
        found[behaviour.offer.key] = Samples(
            starts_s=tuple(behaviour.start_s(rng) for _ in range(num_workers)),
            items_per_s=tuple(behaviour.speed(rng) for _ in range(num_workers)),
            orders=12,
            failed_orders=sum(rng.random() < failing for _ in range(12)),
            worker_hours=hours,
            preemptions=sum(rng.random() < rate * hours / 40 for _ in range(40)),
        )
    return found
