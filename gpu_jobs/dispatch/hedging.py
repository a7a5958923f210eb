"""What to do about the last chunks: wait, or let an idle GPU worker begin a second attempt. Pure.

What is left of a chunk of several items its GPU worker shares out by itself, when an idle one asks: that costs nothing
and needs no decision. What cannot be shared is a lone item, or the chunk of a GPU worker that no longer answers. A
second attempt there is worth its dollars if it is expected to end much sooner and the hedge budget allows it.
"""

from gpu_jobs.dispatch.state import CampaignView, HedgeChunk, LeaseView
from gpu_jobs.durations import duration
from gpu_jobs.jobs.orders import Policy

_MUCH_SLOWER = 1.5
"""A second attempt must be expected to end so many times sooner."""
_FIXED_S = 10.0
"""Until an idle GPU worker has found the chunk and read its first item."""


def hedges(view: CampaignView, policy: Policy) -> list[HedgeChunk]:
    """Second attempts that pay, slowest chunk first, within the hedge budget."""
    idle = sum(job.workers_idle for job in view.jobs)
    if not idle or not view.leases:
        return []
    usual = _usual_items_per_s(view)
    left_usd = policy.hedge_share * (view.spent_usd + view.reserved_usd) - view.hedged_usd
    found: list[HedgeChunk] = []
    for lease in sorted(view.leases, key=lambda each: -_wait_s(each, usual)):
        hedge = _hedge(view, lease, usual, left_usd)
        if hedge is None or len(found) == idle:
            break
        if not lease.is_hedged:
            found.append(hedge)
            left_usd -= _cost_usd(lease, _again_s(lease, usual))
    return found


def _usual_items_per_s(view: CampaignView) -> float:
    """Of a GPU worker, over all that was measured; 0: nothing was."""
    working_s = sum(found.working_s for found in view.evidence.values())
    return sum(found.items for found in view.evidence.values()) / working_s if working_s else 0.0


def _hedge(view: CampaignView, lease: LeaseView, usual: float, left_usd: float) -> HedgeChunk | None:
    wait_s, again_s = _wait_s(lease, usual), _again_s(lease, usual)
    if wait_s < _MUCH_SLOWER * again_s or (lease.items_left > 1 and lease.items_per_s > 0):
        return None
    cost_usd = _cost_usd(lease, again_s)
    burning = sum(job.offer.usd_per_hour * job.workers_alive for job in view.jobs) / 3600
    saved_usd = burning * (wait_s - again_s)
    if cost_usd > left_usd:
        return None
    return HedgeChunk(
        chunk=lease.chunk,
        reason=f"its GPU worker needs about {duration(wait_s)} more, an idle one {duration(again_s)}: a second attempt "
        f"costs ${cost_usd:.3f} and saves {duration(wait_s - again_s)} and ${saved_usd:.3f} of waiting",
    )


def _wait_s(lease: LeaseView, usual: float) -> float:
    """Until its GPU worker is through; one that has not finished an item for long is as slow as that."""
    if lease.items_per_s > 0:
        return lease.items_left / lease.items_per_s
    return max(lease.age_s, lease.items_left / usual if usual else 0.0)


def _again_s(lease: LeaseView, usual: float) -> float:
    return _FIXED_S + (lease.items_left / usual if usual else lease.age_s)


def _cost_usd(lease: LeaseView, seconds: float) -> float:
    return lease.offer.usd_per_hour * seconds / 3600
