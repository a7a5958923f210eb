"""GPU workers that live, and those that may be had, as the mix reckons with them. Pure."""

from dataclasses import replace

from gpu_jobs.dispatch.circuit_breakers import place_of
from gpu_jobs.dispatch.context import Scene
from gpu_jobs.dispatch.optimizer import Source, Task
from gpu_jobs.jobs.offers import Offer

_MARGIN = 0.05
"""Of the time until the deadline that plans leave unused."""
_TAIL = 0.5
"""Of a chunk, what a GPU worker does not get done because the others end first."""


def task_of(scene: Scene) -> Task:
    most: dict[str, int] = {}
    for offer in scene.offers:
        if offer.max_alive is not None:
            most[offer.platform] = offer.max_alive
    latest_s = scene.until_deadline_s
    return Task(
        items=scene.view.items_left,
        max_workers=min(scene.policy.max_workers, scene.view.chunks_left),
        platform_most=most,
        latest_s=None if latest_s is None else (1 - _MARGIN) * latest_s,
    )


def alive_sources(scene: Scene) -> list[Source]:
    """GPU workers that live, at today's prices; those that start are nearer to work than new ones."""
    prices = {offer.key: offer.usd_per_hour for offer in scene.offers}
    sources = []
    for job in scene.view.jobs:
        belief = scene.beliefs[job.offer.key]
        waited_s = job.age_s if job.is_starting or not job.has_lived else belief.slow_start_s
        tail_items, unbilled_s = _tail(scene, job.offer)
        usd_per_hour = prices.get(job.offer.key, job.offer.usd_per_hour)
        sources.append(
            Source(
                name=job.order,
                is_new=False,
                platform=job.offer.platform,
                most=job.workers_wanted,
                ready_s=max(0.0, belief.start_s - waited_s),
                items_per_s=belief.items_per_s,
                usd_per_s=usd_per_hour / 3600,
                tail_items=tail_items,
                unbilled_s=unbilled_s,
                idle_s=job.offer.idle_s,
                is_start_billed=job.offer.is_start_billed,
            )
        )
    return sources


def new_source(scene: Scene, offer: Offer, most: int) -> Source:
    belief = scene.beliefs[offer.key]
    tail_items, unbilled_s = _tail(scene, offer)
    return Source(
        name=name_of(offer),
        is_new=True,
        platform=offer.platform,
        most=most,
        ready_s=belief.start_s,
        items_per_s=belief.items_per_s,
        usd_per_s=offer.usd_per_hour / 3600,
        tail_items=tail_items,
        unbilled_s=unbilled_s,
        least_billed_s=offer.min_billed_s,
        idle_s=offer.idle_s,
        is_start_billed=offer.is_start_billed,
    )


def later_source(scene: Scene, offer: Offer) -> Source:
    """GPU workers that a place without capacity may have after its pause: planned with, and not ordered now."""
    gate = scene.gates[place_of(offer)]
    soon = new_source(scene, offer, min(gate.later, max(0, scene.free), offer.max_workers))
    return replace(soon, name=names_of(offer)[1], ready_s=soon.ready_s + gate.later_s)


def _tail(scene: Scene, offer: Offer) -> tuple[float, float]:
    """Items that a GPU worker does not get done because chunks end at different times, and seconds not paid for."""
    items = _TAIL * scene.view.items_left / scene.view.chunks_left
    belief = scene.beliefs[offer.key]
    return items, max(0.0, items / belief.items_per_s - belief.start_s)


def name_of(offer: Offer) -> str:
    return " ".join(map(str, offer.key))


def names_of(offer: Offer) -> tuple[str, str]:
    """Of its new GPU workers, now and after a pause."""
    return name_of(offer), f"{name_of(offer)} later"
