"""Which GPU jobs to start and which to stop. Pure."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from gpu_jobs.dispatch.canaries import scale_unmeasured
from gpu_jobs.dispatch.candidates import alive_candidates, later_candidate, name_of, names_of, new_candidate, task_of
from gpu_jobs.dispatch.circuit_breakers import location_of, retry_pause_s
from gpu_jobs.dispatch.context import DecisionContext
from gpu_jobs.dispatch.estimates import PRIOR_WORK_S
from gpu_jobs.dispatch.optimizer import Allocation, Candidate, Task, best_allocation
from gpu_jobs.dispatch.orders import order, wait, wait_for_workers
from gpu_jobs.dispatch.state import Decision, OrderEnd, StopJob
from gpu_jobs.durations import duration
from gpu_jobs.jobs.offers import Offer, OfferKey

_WORTH_MOVING, _WORTH_GUESSING = 0.9, 0.7
"""GPU workers are stopped if their work can be done elsewhere for less than this share of the cost. The lower share
applies while the estimated speed elsewhere rests more on its prior than on measurements."""
_MOVE_TIME_SHARE = 0.92
"""GPU workers are stopped only if the others need at most this share of the time left, so that the deadline holds."""
_MIN_MEASURED_S = 45.0
"""An offer's GPU workers are stopped for being slow or expensive only after this many measured GPU worker seconds."""
_RECENT_S = 900.0
"""An offer whose GPU workers were stopped for their cost is avoided for this long, so that plans do not oscillate. Work
is also not moved to a location that has failed or refused within this time."""


def scale(context: DecisionContext) -> Decision:
    """Order the missing GPU workers within all limits, and stop those that are too expensive."""
    if pause_s := retry_pause_s(context.view, context.now):
        return wait(context, f"too many GPU jobs have failed: the next is ordered in {duration(pause_s)}")
    if not context.estimates:
        return scale_unmeasured(context)
    return _scale_measured(context)


def _scale_measured(context: DecisionContext) -> Decision:
    """Order what the best allocation lacks; if nothing is missing, stop what is too expensive."""
    alive, task = alive_candidates(context), task_of(context)
    allocation = _plan(context, alive, task)
    if allocation is None:
        return wait_for_workers(context)
    ideal = _ideal(context, alive, task)
    expensive = _expensive(context, allocation, ideal, alive) if ideal else []
    if ideal is None or not expensive:
        return _order(context, allocation)
    decision = _order(context, ideal)
    if decision.actions or not (stops := _stops(context, ideal, expensive)):
        return decision
    reason = (
        f"the remaining work costs about ${ideal.usd:.2f} elsewhere, with cold starts, and ${allocation.usd:.2f} here"
    )
    return Decision(actions=tuple(StopJob(order=order, reason=reason) for order in stops), reason=reason)


def _order(context: DecisionContext, allocation: Allocation) -> Decision:
    """Order the plan's new GPU workers, but none more expensive than a location we are still probing for capacity."""
    offers = {name_of(offer): offer for offer in context.offers}
    most_usd = _probed_usd_per_item(context, allocation)
    wanted = [
        (offers[candidate.name], min(count, context.available(offers[candidate.name])))
        for candidate, count in allocation.counts
        if candidate.name in offers and candidate.usd_per_item <= most_usd
    ]
    return order(context, wanted, allocation)


def _plan(context: DecisionContext, alive: Sequence[Candidate], task: Task) -> Allocation | None:
    """Return the best allocation that keeps these GPU workers.

    Offers whose GPU workers were recently stopped for their cost are used only if all others are clearly worse.
    """
    allocation = _with_new(context, alive, task, context.offers)
    if allocation is None or not (left := _recently_left(context)):
        return allocation
    others = _with_new(context, alive, task, [offer for offer in context.offers if offer.key not in left])
    return others if others and others.covers and others.usd <= allocation.usd / _WORTH_MOVING else allocation


def _with_new(
    context: DecisionContext, alive: Sequence[Candidate], task: Task, offers: Sequence[Offer]
) -> Allocation | None:
    """Return the best allocation of all GPU workers alive and new ones on these offers."""
    more = [new_candidate(context, offer, context.available(offer)) for offer in offers]
    later = [later_candidate(context, offer) for offer in offers]
    return best_allocation([*alive, *more, *later], replace(task, keeps_alive=True), context.objective)


def _ideal(context: DecisionContext, alive: Sequence[Candidate], task: Task) -> Allocation | None:
    """Return the best allocation, with some time in reserve, if GPU workers alive may be given up; None if none exists.

    A location that has failed or refused, but not recently, is assumed to have full capacity again; a single GPU worker
    tries it first.
    """
    failed = {location_of(end.offer) for end in _recent_ends(context) if end.failure and not end.items_done}
    sure = [offer for offer in context.offers if location_of(offer) not in failed]
    elsewhere = [_ideal_candidate(context, offer) for offer in sure]
    if task.latest_s is not None:
        task = replace(task, latest_s=_MOVE_TIME_SHARE * task.latest_s)
    allocation = best_allocation([*alive, *elsewhere], task, context.objective)
    return allocation if allocation and allocation.covers else None


def _ideal_candidate(context: DecisionContext, offer: Offer) -> Candidate:
    """Return new GPU workers on an offer; where one must try first, the others can start only after it."""
    candidate = new_candidate(context, offer, context.available(offer, is_ideal=True))
    is_tried = context.circuit_breakers[location_of(offer)].max_workers is not None
    return replace(candidate, ready_s=2 * candidate.ready_s) if is_tried else candidate


def _expensive(
    context: DecisionContext, allocation: Allocation, ideal: Allocation, alive: Sequence[Candidate]
) -> list[str]:
    """Return the GPU jobs whose share of the work would be clearly cheaper elsewhere, including cold starts."""
    if context.objective == "fastest" or ideal.usd >= allocation.usd:
        return []
    elsewhere = {candidate.name for candidate, _ in ideal.counts if candidate.is_new}
    is_guess = any(name_of(each) in elsewhere and _measured_s(context, each) < PRIOR_WORK_S for each in context.offers)
    expensive_usd = ideal.usd / context.view.items_left / (_WORTH_GUESSING if is_guess else _WORTH_MOVING)
    keys = {job.order: job.offer.key for job in context.view.jobs}
    kept = {keys.get(candidate.name) for candidate, _ in ideal.counts}
    return [each.name for each in alive if keys[each.name] not in kept and each.usd_per_item > expensive_usd]


def _stops(context: DecisionContext, ideal: Allocation, expensive: Sequence[str]) -> list[str]:
    """Return which of the expensive GPU jobs to stop: all with enough measurements, once their replacements are alive.

    If the limit of GPU workers leaves no room for replacements, only the smallest is stopped.
    """
    known = [
        job
        for job in context.view.jobs
        if job.order in expensive and job.items_done and _measured_s(context, job.offer) >= _MIN_MEASURED_S
    ]
    wanted = {candidate.name for candidate, _ in ideal.counts if candidate.is_new}
    if not wanted:
        return [job.order for job in known]
    open_now = [
        offer
        for offer in context.offers
        if name_of(offer) in wanted and context.circuit_breakers[location_of(offer)].max_workers != 0
    ]
    smallest = sorted(known, key=lambda job: job.workers_wanted)[:1]
    return [job.order for job in smallest] if context.free_slots <= 0 and open_now else []


def _recently_left(context: DecisionContext) -> set[OfferKey]:
    """Return the offers whose GPU workers were recently stopped for their cost."""
    return {end.offer.key for end in _recent_ends(context) if end.is_stopped and end.failure is None}


def _recent_ends(context: DecisionContext) -> list[OrderEnd]:
    since = context.now - timedelta(seconds=_RECENT_S)
    return [end for end in context.view.ends if end.at >= since]


def _probed_usd_per_item(context: DecisionContext, allocation: Allocation) -> float:
    """Return the cost per item at the cheapest location in the allocation that is still being probed for capacity.

    Infinite if no location is being probed, or if time matters more than cost.
    """
    if context.objective != "cheapest" or not allocation.covers:
        return math.inf
    probed = {
        name
        for offer in context.offers
        if context.circuit_breakers[location_of(offer)].is_probing
        for name in names_of(offer)
    }
    return min((each.usd_per_item for each, _ in allocation.counts if each.name in probed), default=math.inf)


def _measured_s(context: DecisionContext, offer: Offer) -> float:
    """Return the GPU worker seconds of work that were measured on an offer."""
    found = context.view.evidence.get(offer.key)
    return found.working_s if found else 0.0
