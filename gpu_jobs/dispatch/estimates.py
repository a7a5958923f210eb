"""How fast GPU workers of an offer work and start, by what was measured and, until then, by priors. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.telemetry.samples import Evidence

PRIOR_WORK_S = 600.0
"""GPU worker seconds of measured work that outweigh the prior of an offer's speed."""
_PRIOR_STARTS = 2.0
"""Cold starts that outweigh the prior."""
_NOTHING = Evidence()


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """Of one offer."""

    items_per_s: float
    """Of one GPU worker at work."""
    start_s: float
    """Expected cold start, order to first item."""
    slow_start_s: float
    """At 90 %."""


def beliefs(offers: Sequence[Offer], evidence: Mapping[OfferKey, Evidence]) -> dict[OfferKey, Belief]:
    """What to expect of each offer; empty while no item has been measured anywhere.

    An offer that was not measured is believed to be as fast, against those that were, as its `speed` says.
    """
    by_key = {offer.key: offer for offer in offers}
    known = [(by_key[key], found) for key, found in evidence.items() if key in by_key and found.items > 0]
    work = sum(found.working_s * offer.worker_speed for offer, found in known)
    if not work:
        return {}
    unit = sum(found.items for _, found in known) / work
    return {offer.key: _belief(offer, evidence.get(offer.key, _NOTHING), unit) for offer in offers}


def _belief(offer: Offer, found: Evidence, unit_items_per_s: float) -> Belief:
    prior = unit_items_per_s * offer.worker_speed
    rate = (found.items + prior * PRIOR_WORK_S) / (found.working_s + PRIOR_WORK_S)
    start_s = (offer.cold_start_p50_s * _PRIOR_STARTS + found.start_s) / (_PRIOR_STARTS + found.starts)
    spread = offer.cold_start_p90_s / offer.cold_start_p50_s if offer.cold_start_p50_s else 1.0
    return Belief(items_per_s=rate, start_s=start_s, slow_start_s=max(start_s * spread, start_s))
