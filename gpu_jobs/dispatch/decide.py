"""The decision itself: go on, or close; whom to order, to stop, to hedge."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from gpu_jobs.dispatch.circuit_breakers import gates, is_fruitless_error
from gpu_jobs.dispatch.context import allowed
from gpu_jobs.dispatch.hedging import hedges
from gpu_jobs.dispatch.scaling import staff
from gpu_jobs.dispatch.stalls import stall_of, stop_for
from gpu_jobs.dispatch.state import Action, CampaignView, CloseCampaign, Decision, OrderEnd, Stall, StartJob, StopJob
from gpu_jobs.durations import duration
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Policy

_SHARE_FROM_ITEMS = 20
_LEAVE_S = 10.0
"""How long GPU workers of a finished campaign have to leave by themselves before they are stopped."""


def decide(view: CampaignView, offers: Sequence[Offer], policy: Policy, now: datetime) -> Decision:
    """Keep the best GPU workers alive while work is open; close when it is tiled or cannot go on.

    Raises nothing; an empty `actions` means wait, and `reason` says for what.
    """
    if view.closed and view.items_left == 0 and view.closed_for_s < _LEAVE_S:
        return Decision(actions=(), reason="every item is settled; the GPU workers are leaving")
    if view.closed:
        return _stop_all(view, f"the campaign is closed: {view.closed}")
    if view.items_left == 0:
        done = "every item is settled"
        return Decision(actions=(CloseCampaign(reason=done),), reason=done)
    usable = allowed(offers, policy)
    if reason := _hopeless(view, usable, policy, now):
        return _close(view, reason)
    decision = staff(view, usable, policy, now)
    if not view.jobs and (reason := _stuck(view, usable, policy, decision, now)):
        return _close(view, reason)
    return _with_care(view, policy, decision)


def _with_care(view: CampaignView, policy: Policy, decision: Decision) -> Decision:
    """Add what is the matter with GPU jobs, and what is done about it and about the last chunks."""
    stalls = {job.order: stall for job in view.jobs if (stall := stall_of(job, policy))}
    given_up = [stop for job in view.jobs if (stop := stop_for(job, stalls.get(job.order)))]
    if given_up:  # their ends will tell whether that place may be asked again
        return replace(decision, actions=tuple(given_up), stalls=stalls, reason=given_up[0].reason)
    second = [] if any(isinstance(action, StartJob) for action in decision.actions) else hedges(view, policy)
    actions: tuple[Action, ...] = (*decision.actions, *second)
    return replace(decision, actions=actions, stalls=stalls, reason=second[0].reason if second else decision.reason)


def _hopeless(view: CampaignView, offers: Sequence[Offer], policy: Policy, now: datetime) -> str:
    """Why the campaign should not go on; "" if it should."""
    if policy.deadline is not None and now >= policy.deadline:
        return f"the deadline {policy.deadline:%Y-%m-%d %H:%M} UTC has passed"
    if not offers:
        return f"no platform offers {' or '.join(policy.gpus)}" if policy.gpus else "no platform offers anything"
    if reason := _broken(view, offers, policy, now):
        return reason
    if view.exhausted_chunk:
        return f"chunk {view.exhausted_chunk} has had {policy.max_attempts} attempts"
    share = view.quarantined_items / view.num_items
    if view.quarantined_items >= _SHARE_FROM_ITEMS and share > policy.max_quarantined_share:
        return f"{share:.0%} of all items are quarantined, {policy.max_quarantined_share:.0%} are allowed"
    return ""


def _broken(view: CampaignView, offers: Sequence[Offer], policy: Policy, now: datetime) -> str:
    """Whether GPU jobs keep failing wherever they are ordered."""
    if any(job.items_done for job in view.jobs):
        return ""
    idle = _fruitless_in_a_row(view.ends)
    if not idle:
        return ""
    found = gates(view, offers, now).values()
    places = sum(not gate.is_final for gate in found)
    if len(idle) >= policy.max_idle_jobs * max(1, places):
        return f"{len(idle)} GPU jobs in a row got nothing done; the last: {idle[-1].told}"
    return ""


def _fruitless_in_a_row(ends: Sequence[OrderEnd]) -> list[OrderEnd]:
    """The newest errors, back to the last GPU job that got something done."""
    last = max((at for at, end in enumerate(ends) if end.items_done), default=-1)
    return [end for end in ends[last + 1 :] if is_fruitless_error(end)]


def _stuck(view: CampaignView, offers: Sequence[Offer], policy: Policy, decision: Decision, now: datetime) -> str:
    """With nothing alive and nothing to start: why waiting is of no use; "" if it may be."""
    if decision.actions:
        return ""
    if decision.stall is Stall.WAITING_FOR_BUDGET:
        return decision.reason
    found = gates(view, offers, now).values()
    if all(gate.is_final for gate in found):
        return "; ".join(dict.fromkeys(gate.why for gate in found))
    if policy.deadline is not None:
        soonest_s = min(offer.cold_start_p50_s for offer in offers)
        if (policy.deadline - now).total_seconds() <= soonest_s:
            return f"the deadline {policy.deadline:%Y-%m-%d %H:%M} UTC is too near for a GPU worker to start"
    waited_s = min([view.opened_for_s, *((now - end.at).total_seconds() for end in view.ends if end.items_done)])
    if waited_s >= 3600 * policy.max_wait_hours:
        return f"no GPU worker could be had for {duration(3600 * policy.max_wait_hours)}; {decision.reason}"
    return ""


def _close(view: CampaignView, reason: str) -> Decision:
    stops = _stop_all(view, reason).actions
    return Decision(actions=(*stops, CloseCampaign(reason=reason)), reason=reason)


def _stop_all(view: CampaignView, reason: str) -> Decision:
    return Decision(actions=tuple(StopJob(order=job.order, reason=reason) for job in view.jobs), reason=reason)
