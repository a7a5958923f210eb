"""Orders that the budget can pay for, and the reasons for a decision in words. Pure."""

from collections.abc import Iterable

from gpu_jobs.dispatch.context import DecisionContext
from gpu_jobs.dispatch.optimizer import Allocation
from gpu_jobs.dispatch.state import Decision, Stall, StartJob
from gpu_jobs.durations import duration
from gpu_jobs.jobs.costs import REAPER_S, worst_case_usd
from gpu_jobs.jobs.offers import Offer

_LEAST_HOURS = 0.25
"""The shortest GPU job that is ordered when the budget is small."""
_UNMEASURED_HOURS = 1.0
"""The duration of a GPU job when the budget is small and no speed was measured."""
_SPARE = 2.0
"""Once speeds are measured, a GPU job may last this many times as long as the work is expected to take."""


def order(
    context: DecisionContext, wanted: Iterable[tuple[Offer, int]], allocation: Allocation | None = None
) -> Decision:
    """Order these numbers of GPU workers, as far as free slots and the budget allow, or say why none is ordered."""
    actions: list[StartJob] = []
    free, left_usd = context.free_slots, context.left_usd
    for offer, count in wanted:
        if min(count, free) <= 0:
            continue
        start, problem = _affordable(context, offer, min(count, free), allocation, left_usd)
        if start is None and not actions:
            return wait(context, problem, Stall.WAITING_FOR_BUDGET)
        if start is None:
            break
        actions.append(start)
        free -= start.num_workers
        if left_usd is not None:
            left_usd -= worst_case_usd(offer, start.num_workers, start.hours)
    if actions:
        return Decision(actions=tuple(actions), reason=actions[0].reason)
    return wait_for_workers(context, allocation)


def _affordable(
    context: DecisionContext, offer: Offer, num_workers: int, allocation: Allocation | None, left_usd: float | None
) -> tuple[StartJob | None, str]:
    """Return an order for as many GPU workers and hours as the budget allows, or None and why none is possible."""
    most_hours = context.most_hours(offer)
    reason = _reason(context, allocation)
    if left_usd is None or not offer.usd_per_hour:
        return StartJob(offer=offer, num_workers=num_workers, hours=most_hours, reason=reason), ""
    hours = most_hours
    if allocation is not None:
        slow_start_s = context.estimates[offer.key].slow_start_s
        hours = min(most_hours, max(_LEAST_HOURS, (_SPARE * allocation.finish_s + slow_start_s) / 3600))
    elif worst_case_usd(offer, num_workers, hours) > left_usd:
        hours = min(most_hours, _UNMEASURED_HOURS)
    count = num_workers
    while count > 1 and worst_case_usd(offer, count, hours) > left_usd:
        count = min(count - 1, int(left_usd / worst_case_usd(offer, 1, hours)))
    if count < 1 or worst_case_usd(offer, count, hours) > left_usd:
        count, hours = (
            1,
            min(hours, left_usd / offer.usd_per_hour - (REAPER_S + offer.idle_s + offer.granularity_s) / 3600),
        )
    if hours < min(_LEAST_HOURS, most_hours) or worst_case_usd(offer, count, hours) > left_usd:
        cost_usd = worst_case_usd(offer, num_workers, most_hours)
        return None, f"${cost_usd:.2f} for {num_workers} GPU workers exceed the ${left_usd:.2f} left of the budget"
    return StartJob(offer=offer, num_workers=count, hours=hours, reason=reason), ""


def _reason(context: DecisionContext, allocation: Allocation | None) -> str:
    view, policy = context.view, context.policy
    reason = (
        f"{view.chunks_left} chunks are open and {view.workers_wanted} of {policy.max_workers} GPU workers are alive"
    )
    if allocation is None:
        return reason
    if not allocation.covers:
        return f"{reason}; all that is available is ordered, since the deadline can hardly be met"
    ends = f"{reason}; the {policy.objective} allocation finishes in about {duration(allocation.finish_s)}"
    if context.until_deadline_s is None:
        return ends
    return f"{ends}, {duration(context.until_deadline_s - allocation.finish_s)} before the deadline"


def wait(context: DecisionContext, reason: str, stall: Stall | None = None) -> Decision:
    return Decision(actions=(), reason=reason, stall=None if context.view.workers_wanted else stall)


def wait_for_workers(context: DecisionContext, allocation: Allocation | None = None) -> Decision:
    """Return the decision to order nothing, with the reason."""
    view = context.view
    at_work = f"{view.workers_wanted} GPU workers are at work"
    if context.free_slots <= 0:
        return wait(context, f"{at_work}, {context.policy.max_workers} are allowed")
    closed = {
        location: breaker.why for location, breaker in context.circuit_breakers.items() if breaker.max_workers == 0
    }
    if closed and len(closed) == len(context.circuit_breakers):
        reasons = "; ".join(f"{location.platform} {location.gpu}: {why}" for location, why in closed.items())
        return wait(context, f"{at_work}; {reasons}", Stall.WAITING_FOR_CAPACITY)
    if allocation is not None:
        return wait(
            context,
            f"{at_work} and will be done in about {duration(allocation.finish_s)}; more would not be worth their cost",
        )
    return wait(context, f"{at_work}; no other could start in time", Stall.WAITING_FOR_CAPACITY)
