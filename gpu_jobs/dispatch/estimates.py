"""Estimates of how fast GPU workers of an offer work and start, from its listed figures and measurements. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.telemetry.samples import Evidence

PRIOR_WORK_S = 600.0
"""The prior of an offer's speed weighs as much as this many measured GPU worker seconds of work."""
_PRIOR_STARTS = 2.0
"""The prior of an offer's cold start weighs as much as this many measured ones."""
_NOTHING = Evidence()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What to expect of one GPU worker of an offer."""

    items_per_s: float
    """Throughput while it works."""
    start_s: float
    """Mean time from the order to the first item."""
    slow_start_s: float
    """90th percentile of the same time."""


def estimates(offers: Sequence[Offer], evidence: Mapping[OfferKey, Evidence]) -> dict[OfferKey, Estimate]:
    """Return an estimate of each offer; empty until an item was measured on any of them.

    An offer without measurements is assumed to be as fast, relative to those with measurements, as its `speed` says.
    """
    by_key = {offer.key: offer for offer in offers}
    known = [(by_key[key], found) for key, found in evidence.items() if key in by_key and found.items > 0]
    work = sum(found.working_s * offer.worker_speed for offer, found in known)
    if not work:
        return {}
    unit = sum(found.items for _, found in known) / work
    return {offer.key: _estimate(offer, evidence.get(offer.key, _NOTHING), unit) for offer in offers}


def _estimate(offer: Offer, found: Evidence, unit_items_per_s: float) -> Estimate:
    prior = unit_items_per_s * offer.worker_speed
    rate = (found.items + prior * PRIOR_WORK_S) / (found.working_s + PRIOR_WORK_S)
    start_s = (offer.cold_start_p50_s * _PRIOR_STARTS + found.start_s) / (_PRIOR_STARTS + found.starts)
    spread = offer.cold_start_p90_s / offer.cold_start_p50_s if offer.cold_start_p50_s else 1.0
    return Estimate(items_per_s=rate, start_s=start_s, slow_start_s=max(start_s * spread, start_s))
