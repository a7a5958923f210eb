"""What to order before anything is measured: canaries, or the best offers by listed speed and price. Pure."""

from collections.abc import Sequence

from gpu_jobs.dispatch.context import DecisionContext
from gpu_jobs.dispatch.orders import order, wait
from gpu_jobs.dispatch.state import Decision
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Policy

_MUCH_SOONER = 0.5
"""A second canary is ordered if its cold start takes less than this share of the first one's."""


def scale_unmeasured(context: DecisionContext) -> Decision:
    """Order the best offers by their listed figures; or order canaries and wait for their measurements."""
    ranked = sorted(context.offers, key=lambda each: _rank(each, context.policy))
    if not context.policy.is_canary_first or all(offer.usd_per_hour == 0 for offer in ranked):
        return order(context, [(offer, context.available(offer)) for offer in ranked])
    canaries = _canaries(context, ranked)
    if not canaries and context.view.jobs:
        return wait(context, "canaries measure cold start and speed before the others start")
    return order(context, [(offer, 1) for offer in canaries])


def _canaries(context: DecisionContext, ranked: Sequence[Offer]) -> list[Offer]:
    """Return the offers on which a canary is missing.

    One canary goes to the best available offer. If time matters, a second one goes to the offer with the shortest cold
    start, provided that it measures much sooner. A platform that has a canary gets no other.
    """
    has_canary = {job.offer.platform for job in context.view.jobs}
    available = [offer for offer in ranked if offer.platform in has_canary or context.available(offer) > 0]
    wanted = available[:1]
    if available and (context.objective != "cheapest" or context.policy.deadline is not None):
        soonest = min(available, key=lambda each: each.cold_start_p50_s)
        if soonest.cold_start_p50_s < _MUCH_SOONER * available[0].cold_start_p50_s:
            wanted.append(soonest)
    return [offer for offer in wanted if offer.platform not in has_canary]


def _rank(offer: Offer, policy: Policy) -> tuple[float, float]:
    """Return a sort key: the best offer first, by listed speed, price and cold start."""
    match policy.objective:
        case "fastest":
            return -offer.worker_speed, offer.cold_start_p50_s
        case "balanced":
            return offer.usd_per_hour / offer.worker_speed**1.5, offer.cold_start_p50_s
        case _:
            return offer.usd_per_hour / offer.worker_speed, offer.cold_start_p50_s
