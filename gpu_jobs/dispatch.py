"""What to do next, decided from what is known. Pure: no clock, no store, no platform."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gpu_jobs.jobs import Policy
from gpu_jobs.money import worst_case_usd
from gpu_jobs.offers import Offer


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One live GPU job, as far as the loop can see."""

    order: str
    offer: Offer
    num_workers: int
    """As ordered."""
    workers_alive: int
    is_starting: bool
    """Ordered, and not yet seen to run or to be over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignView:
    """What is known of a campaign at one moment."""

    num_items: int
    items_left: int
    quarantined_items: int
    """By convicted crashes and by error rows."""
    chunks_left: int
    exhausted_chunk: str = ""
    """A chunk that has used up `Policy.max_attempts`, if any."""
    jobs: Sequence[JobView] = ()
    idle_jobs_in_a_row: int = 0
    last_failure: str = ""
    """Of the newest GPU job that ended without a commit."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Platforms that refuse our requests as such, and why: asking again fails alike."""
    reserved_usd: float = 0.0
    spent_usd: float = 0.0
    closed: str = ""
    closed_for_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StartJob:
    offer: Offer
    num_workers: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopJob:
    order: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseCampaign:
    reason: str


Action = StartJob | StopJob | CloseCampaign


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now, and why in words."""

    actions: tuple[Action, ...]
    reason: str


_SHARE_FROM_ITEMS = 20
_LEAVE_S = 10.0
"""How long GPU workers of a finished campaign have to leave by themselves before they are stopped."""


def decide(view: CampaignView, offers: Sequence[Offer], policy: Policy, now: datetime) -> Decision:
    """Keep the wanted number of GPU workers alive while work is open; close when it is tiled or cannot go on.

    Raises nothing; an empty `actions` means wait. `offers` must not be empty.
    """
    if view.closed and view.items_left == 0 and view.closed_for_s < _LEAVE_S:
        return Decision(actions=(), reason="every item is settled; the GPU workers are leaving")
    if view.closed:
        return _stop_all(view, f"the campaign is closed: {view.closed}")
    if view.items_left == 0:
        done = "every item is settled"
        return Decision(actions=(CloseCampaign(reason=done),), reason=done)
    if reason := _hopeless(view, policy, now):
        return _close(view, reason)
    return _staff(view, offers, policy)


def _staff(view: CampaignView, offers: Sequence[Offer], policy: Policy) -> Decision:
    """Order the GPU workers that are missing, as far as the budget goes."""
    alive = sum(job.num_workers if job.is_starting else job.workers_alive for job in view.jobs)
    missing = min(policy.max_workers, view.chunks_left) - alive
    if missing <= 0:
        return Decision(actions=(), reason=f"{alive} GPU workers are at work, {policy.max_workers} are allowed")
    offers = [offer for offer in offers if offer.platform not in view.refusals]
    if not offers:
        return _wait_or_close(view, "; ".join(f"{name} refuses: {why}" for name, why in view.refusals.items()))
    offer = min(offers, key=lambda each: each.usd_per_hour)
    num_workers = min(missing, offer.max_workers)
    cost_usd = worst_case_usd(offer, num_workers, offer.job_hours(policy.job_hours))
    if policy.budget_usd is not None and view.spent_usd + view.reserved_usd + cost_usd > policy.budget_usd:
        left_usd = policy.budget_usd - view.spent_usd - view.reserved_usd
        reason = f"${cost_usd:.2f} for {num_workers} GPU workers exceed the ${left_usd:.2f} left of the budget"
        return _wait_or_close(view, reason)
    reason = f"{view.chunks_left} chunks are open and {alive} of {policy.max_workers} GPU workers are alive"
    return Decision(actions=(StartJob(offer=offer, num_workers=num_workers, reason=reason),), reason=reason)


def _hopeless(view: CampaignView, policy: Policy, now: datetime) -> str:
    """Why the campaign should not go on; "" if it should."""
    if policy.deadline is not None and now >= policy.deadline:
        return f"the deadline {policy.deadline:%Y-%m-%d %H:%M} UTC has passed"
    if view.idle_jobs_in_a_row >= policy.max_idle_jobs:
        return f"{view.idle_jobs_in_a_row} GPU jobs in a row got nothing done; the last: {view.last_failure}"
    if view.exhausted_chunk:
        return f"chunk {view.exhausted_chunk} has had {policy.max_attempts} attempts"
    share = view.quarantined_items / view.num_items
    if view.quarantined_items >= _SHARE_FROM_ITEMS and share > policy.max_quarantined_share:
        return f"{share:.0%} of all items are quarantined, {policy.max_quarantined_share:.0%} are allowed"
    return ""


def _wait_or_close(view: CampaignView, reason: str) -> Decision:
    """No more GPU jobs; those that live may finish."""
    return Decision(actions=(), reason=reason) if view.jobs else _close(view, reason)


def _close(view: CampaignView, reason: str) -> Decision:
    stops = _stop_all(view, reason).actions
    return Decision(actions=(*stops, CloseCampaign(reason=reason)), reason=reason)


def _stop_all(view: CampaignView, reason: str) -> Decision:
    return Decision(actions=tuple(StopJob(order=job.order, reason=reason) for job in view.jobs), reason=reason)
