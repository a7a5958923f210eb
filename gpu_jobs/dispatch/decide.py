"""The decision itself: continue or close the campaign; which GPU jobs to order or stop, and which chunks to hedge."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from gpu_jobs.dispatch.circuit_breakers import is_fruitless_error
from gpu_jobs.dispatch.context import DecisionContext, allowed
from gpu_jobs.dispatch.hedging import hedges
from gpu_jobs.dispatch.scaling import scale
from gpu_jobs.dispatch.stalls import stall_of, stop_for
from gpu_jobs.dispatch.state import Action, CampaignView, CloseCampaign, Decision, OrderEnd, Stall, StartJob, StopJob
from gpu_jobs.durations import duration
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger.journal import CloseCause

_SHARE_FROM_ITEMS = 20
"""The share of quarantined items is checked once this many are quarantined."""
_LEAVE_S = 10.0
"""GPU workers of a complete campaign have this long to exit by themselves before they are stopped."""


def decide(view: CampaignView, offers: Sequence[Offer], policy: Policy, now: datetime) -> Decision:
    """Keep the best GPU workers alive while items are open; close the campaign when it is complete or cannot continue.

    Never raises. Empty `actions` mean that there is nothing to do but wait; `reason` says for what.
    """
    if view.closed and view.items_left == 0 and view.closed_for_s < _LEAVE_S:
        return Decision(actions=(), reason="every item is settled; the GPU workers are exiting")
    if view.closed:
        return _stop_all(view, f"the campaign is closed: {view.closed}")
    if view.items_left == 0:
        done = "every item is settled"
        return Decision(actions=(CloseCampaign(cause=CloseCause.COMPLETE, reason=done),), reason=done)
    usable = allowed(offers, policy)
    context = DecisionContext.of(view, usable, policy, now)
    if closing := _hopeless(context):
        return _close(view, closing)
    decision = scale(context)
    if not view.jobs and (closing := _stuck(context, decision)):
        return _close(view, closing)
    return _with_care(view, policy, decision)


def _with_care(view: CampaignView, policy: Policy, decision: Decision) -> Decision:
    """Add why GPU jobs appear stuck, stop those that never started, and hedge the last chunks."""
    stalls = {job.order: stall for job in view.jobs if (stall := stall_of(job, policy))}
    given_up = [stop for job in view.jobs if (stop := stop_for(job, stalls.get(job.order)))]
    if given_up:  # their ends will show whether their locations may be used again
        return replace(decision, actions=tuple(given_up), stalls=stalls, reason=given_up[0].reason)
    second = [] if any(isinstance(action, StartJob) for action in decision.actions) else hedges(view, policy)
    actions: tuple[Action, ...] = (*decision.actions, *second)
    return replace(decision, actions=actions, stalls=stalls, reason=second[0].reason if second else decision.reason)


def _hopeless(context: DecisionContext) -> CloseCampaign | None:
    """Why the campaign cannot continue; None if it can."""
    view, policy = context.view, context.policy
    if policy.deadline is not None and context.now >= policy.deadline:
        why = f"the deadline {policy.deadline:%Y-%m-%d %H:%M} UTC has passed"
        return CloseCampaign(cause=CloseCause.DEADLINE, reason=why)
    if not context.offers:
        why = f"no platform offers {' or '.join(policy.gpus)}" if policy.gpus else "no platform has an offer"
        return CloseCampaign(cause=CloseCause.NO_OFFER, reason=why)
    if broken := _broken(context):
        return broken
    if view.exhausted_chunk:
        why = f"chunk {view.exhausted_chunk} has had {policy.max_attempts} attempts"
        return CloseCampaign(cause=CloseCause.ATTEMPTS, reason=why)
    share = view.quarantined_items / view.num_items
    if view.quarantined_items >= _SHARE_FROM_ITEMS and share > policy.max_quarantined_share:
        why = f"{share:.0%} of all items are quarantined, {policy.max_quarantined_share:.0%} are allowed"
        return CloseCampaign(cause=CloseCause.QUARANTINE, reason=why)
    return None


def _broken(context: DecisionContext) -> CloseCampaign | None:
    """Whether GPU jobs keep failing wherever they are ordered; None if they do not."""
    if any(job.items_done for job in context.view.jobs):
        return None
    idle = _fruitless_in_a_row(context.view.ends)
    if not idle:
        return None
    locations = sum(not breaker.is_final for breaker in context.circuit_breakers.values())
    if len(idle) >= context.policy.max_idle_jobs * max(1, locations):
        why = f"{len(idle)} GPU jobs in a row got nothing done; the last message: {idle[-1].message}"
        return CloseCampaign(cause=CloseCause.IDLE_JOBS, reason=why)
    return None


def _fruitless_in_a_row(ends: Sequence[OrderEnd]) -> list[OrderEnd]:
    """Return the ends with errors since the last GPU job that got something done."""
    last = max((at for at, end in enumerate(ends) if end.items_done), default=-1)
    return [end for end in ends[last + 1 :] if is_fruitless_error(end)]


def _stuck(context: DecisionContext, decision: Decision) -> CloseCampaign | None:
    """Why waiting is useless, if no GPU job is alive and none can be started; otherwise None."""
    view, policy, now = context.view, context.policy, context.now
    if decision.actions:
        return None
    if decision.stall is Stall.WAITING_FOR_BUDGET:
        return CloseCampaign(cause=CloseCause.BUDGET, reason=decision.reason)
    found = context.circuit_breakers.values()
    if all(breaker.is_final for breaker in found):
        why = "; ".join(dict.fromkeys(breaker.why for breaker in found))
        return CloseCampaign(cause=CloseCause.OFFERS_REFUSED, reason=why)
    if policy.deadline is not None:
        soonest_s = min(offer.cold_start_p50_s for offer in context.offers)
        if (policy.deadline - now).total_seconds() <= soonest_s:
            why = f"the deadline {policy.deadline:%Y-%m-%d %H:%M} UTC is too close for a GPU worker to start"
            return CloseCampaign(cause=CloseCause.DEADLINE, reason=why)
    waited_s = min([view.opened_for_s, *((now - end.at).total_seconds() for end in view.ends if end.items_done)])
    if waited_s >= 3600 * policy.max_wait_hours:
        why = f"no GPU worker was available for {duration(3600 * policy.max_wait_hours)}; {decision.reason}"
        return CloseCampaign(cause=CloseCause.NO_CAPACITY, reason=why)
    return None


def _close(view: CampaignView, closing: CloseCampaign) -> Decision:
    stops = _stop_all(view, closing.reason).actions
    return Decision(actions=(*stops, closing), reason=closing.reason)


def _stop_all(view: CampaignView, reason: str) -> Decision:
    return Decision(actions=tuple(StopJob(order=job.order, reason=reason) for job in view.jobs), reason=reason)
