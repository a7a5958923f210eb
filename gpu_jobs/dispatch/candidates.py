"""The candidates that the optimizer chooses from: GPU workers that are alive, and new ones on each offer. Pure."""

from dataclasses import replace

from gpu_jobs.dispatch.circuit_breakers import location_of
from gpu_jobs.dispatch.context import DecisionContext
from gpu_jobs.dispatch.optimizer import Candidate, Task
from gpu_jobs.jobs.offers import Offer

_MARGIN = 0.05
"""Share of the time until the deadline that plans keep in reserve."""
_TAIL = 0.5
"""Share of a chunk that a GPU worker loses on average at the end, because chunks finish at different times."""


def task_of(context: DecisionContext) -> Task:
    """Return the remaining work and its limits."""
    platform_max: dict[str, int] = {}
    for offer in context.offers:
        if offer.max_alive is not None:
            platform_max[offer.platform] = offer.max_alive
    latest_s = context.until_deadline_s
    return Task(
        items=context.view.items_left,
        max_workers=min(context.policy.max_workers, context.view.chunks_left),
        platform_max_workers=platform_max,
        latest_s=None if latest_s is None else (1 - _MARGIN) * latest_s,
    )


def alive_candidates(context: DecisionContext) -> list[Candidate]:
    """Return the GPU workers alive at current prices, one candidate per GPU job.

    GPU workers that are starting are ready sooner than new ones.
    """
    prices = {offer.key: offer.usd_per_hour for offer in context.offers}
    candidates = []
    for job in context.view.jobs:
        estimate = context.estimates[job.offer.key]
        waited_s = job.age_s if job.is_starting or not job.has_lived else estimate.slow_start_s
        tail_items, unbilled_s = _tail(context, job.offer)
        usd_per_hour = prices.get(job.offer.key, job.offer.usd_per_hour)
        candidates.append(
            Candidate(
                name=job.order,
                is_new=False,
                platform=job.offer.platform,
                max_workers=job.workers_wanted,
                ready_s=max(0.0, estimate.start_s - waited_s),
                items_per_s=estimate.items_per_s,
                usd_per_s=usd_per_hour / 3600,
                tail_items=tail_items,
                unbilled_s=unbilled_s,
                idle_s=job.offer.idle_s,
                is_start_billed=job.offer.is_start_billed,
            )
        )
    return candidates


def new_candidate(context: DecisionContext, offer: Offer, max_workers: int) -> Candidate:
    """Return up to `max_workers` new GPU workers on an offer, ordered now."""
    estimate = context.estimates[offer.key]
    tail_items, unbilled_s = _tail(context, offer)
    return Candidate(
        name=name_of(offer),
        is_new=True,
        platform=offer.platform,
        max_workers=max_workers,
        ready_s=estimate.start_s,
        items_per_s=estimate.items_per_s,
        usd_per_s=offer.usd_per_hour / 3600,
        tail_items=tail_items,
        unbilled_s=unbilled_s,
        least_billed_s=offer.min_billed_s,
        idle_s=offer.idle_s,
        is_start_billed=offer.is_start_billed,
    )


def later_candidate(context: DecisionContext, offer: Offer) -> Candidate:
    """Return GPU workers that a paused location may have after its pause: planned, but not ordered now."""
    breaker = context.circuit_breakers[location_of(offer)]
    now = new_candidate(context, offer, min(breaker.later_workers, max(0, context.free_slots), offer.max_workers))
    return replace(now, name=names_of(offer)[1], ready_s=now.ready_s + breaker.later_s)


def _tail(context: DecisionContext, offer: Offer) -> tuple[float, float]:
    """Return the items lost at the tail because chunks finish at different times, and the seconds not billed."""
    items = _TAIL * context.view.items_left / context.view.chunks_left
    estimate = context.estimates[offer.key]
    return items, max(0.0, items / estimate.items_per_s - estimate.start_s)


def name_of(offer: Offer) -> str:
    """Return the name of the candidate with new GPU workers on an offer."""
    return " ".join(map(str, offer.key))


def names_of(offer: Offer) -> tuple[str, str]:
    """Return the names of an offer's candidates: new GPU workers now, and after a pause."""
    return name_of(offer), f"{name_of(offer)} later"
