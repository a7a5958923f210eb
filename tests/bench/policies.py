"""Simple ways to order GPU workers, to compare with `decide`. None of them uses speeds."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from gpu_jobs.dispatch import CampaignView, CloseCampaign, Decision, HedgeChunk, StartJob, decide
from gpu_jobs.forecast.simulator import Decide
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger.journal import CloseCause


def fixed_order(view: CampaignView, offers: Sequence[Offer], policy: Policy, now: datetime) -> Decision:
    """Use the first offer until it refuses or fails, then the next one, and after the last the first again."""
    tries = sum(not end.items_done for end in view.ends)
    return _order(view, offers[tries % len(offers)], policy, now)


def round_robin(view: CampaignView, offers: Sequence[Offer], policy: Policy, now: datetime) -> Decision:
    """Send each order to the next offer, for a tenth of the GPU workers at a time."""
    tries = len(view.ends) + len(view.jobs)
    return _order(view, offers[tries % len(offers)], policy, now, most=max(1, policy.max_workers // 10))


def static(counts: dict[str, int]) -> Decide:
    """Return a function that orders fixed numbers of GPU workers per platform at the start, and no others."""

    def decide(view: CampaignView, offers: Sequence[Offer], policy: Policy, now: datetime) -> Decision:
        if over := _over(view, policy, now):
            return over
        started = {job.offer.platform for job in view.jobs} | {end.offer.platform for end in view.ends}
        actions = tuple(
            StartJob(offer=offer, num_workers=counts[offer.platform], reason="as assigned", hours=_hours(policy, now))
            for offer in offers
            if counts.get(offer.platform) and offer.platform not in started
        )
        return Decision(actions=actions, reason="as assigned")

    return decide


def hedging_everything(view: CampaignView, offers: Sequence[Offer], policy: Policy, now: datetime) -> Decision:
    """Decide as `decide` does, but let every idle GPU worker start a second attempt at one of the last chunks."""
    decision = decide(view, offers, policy, now)
    idle = sum(job.workers_idle for job in view.jobs)
    once = [lease.chunk for lease in view.leases if not lease.is_hedged]
    second = tuple(HedgeChunk(chunk=chunk, reason="everything is hedged") for chunk in once[:idle])
    return replace(decision, actions=(*decision.actions, *second))


def _order(view: CampaignView, offer: Offer, policy: Policy, now: datetime, most: int | None = None) -> Decision:
    if over := _over(view, policy, now):
        return over
    missing = min(policy.max_workers, view.chunks_left) - view.workers_wanted
    count = min(missing, offer.max_workers, most or missing)
    if count <= 0:
        return Decision(actions=(), reason="enough")
    start = StartJob(offer=offer, num_workers=count, reason="its turn", hours=_hours(policy, now))
    return Decision(actions=(start,), reason="its turn")


def _hours(policy: Policy, now: datetime) -> float:
    if policy.deadline is None:
        return policy.job_hours
    return min(policy.job_hours, (policy.deadline - now).total_seconds() / 3600)


def _over(view: CampaignView, policy: Policy, now: datetime) -> Decision | None:
    if policy.deadline is not None and now >= policy.deadline:
        return Decision(
            actions=(CloseCampaign(cause=CloseCause.DEADLINE, reason="the deadline has passed"),), reason="late"
        )
    return None
