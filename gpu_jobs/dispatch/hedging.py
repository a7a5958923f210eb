"""What to do about the last chunks: wait, or let an idle GPU worker start a second attempt (a hedge). Pure.

A GPU worker whose chunk has several items left gives half of them to an idle GPU worker that asks; that costs nothing
and needs no decision. A single item, or the chunk of a GPU worker that no longer responds, cannot be shared. There a
second attempt is worth its cost if it is expected to end much sooner and the hedge budget allows it.
"""

from gpu_jobs.dispatch.state import CampaignView, HedgeChunk, LeaseView
from gpu_jobs.durations import duration
from gpu_jobs.jobs.orders import Policy

_MUCH_SLOWER = 1.5
"""A second attempt is started only if the wait for the first is expected to be this many times longer."""
_FIXED_S = 10.0
"""The time that an idle GPU worker needs to find the chunk and read its first item."""


def hedges(view: CampaignView, policy: Policy) -> list[HedgeChunk]:
    """Return the second attempts that are worth their cost within the hedge budget, the slowest chunk first."""
    idle = sum(job.workers_idle for job in view.jobs)
    if not idle or not view.leases:
        return []
    mean_items_per_s = _mean_items_per_s(view)
    left_usd = policy.hedge_share * (view.spent_usd + view.reserved_usd) - view.hedged_usd
    found: list[HedgeChunk] = []
    for lease in sorted(view.leases, key=lambda each: -_wait_s(each, mean_items_per_s)):
        hedge = _hedge(view, lease, mean_items_per_s, left_usd)
        if hedge is None or len(found) == idle:
            break
        if not lease.is_hedged:
            found.append(hedge)
            left_usd -= _cost_usd(lease, _second_attempt_s(lease, mean_items_per_s))
    return found


def _mean_items_per_s(view: CampaignView) -> float:
    """Return the mean throughput of a GPU worker over all measurements; 0 if there are none."""
    working_s = sum(found.working_s for found in view.evidence.values())
    return sum(found.items for found in view.evidence.values()) / working_s if working_s else 0.0


def _hedge(view: CampaignView, lease: LeaseView, mean_items_per_s: float, left_usd: float) -> HedgeChunk | None:
    wait_s, second_s = _wait_s(lease, mean_items_per_s), _second_attempt_s(lease, mean_items_per_s)
    if wait_s < _MUCH_SLOWER * second_s or (lease.items_left > 1 and lease.items_per_s > 0):
        return None
    cost_usd = _cost_usd(lease, second_s)
    burn_usd_per_s = sum(job.offer.usd_per_hour * job.workers_alive for job in view.jobs) / 3600
    saved_usd = burn_usd_per_s * (wait_s - second_s)
    if cost_usd > left_usd:
        return None
    return HedgeChunk(
        chunk=lease.chunk,
        reason=(
            f"its GPU worker needs about {duration(wait_s)} more, and an idle one would need {duration(second_s)}: "
            f"a second attempt costs ${cost_usd:.3f}, and saves {duration(wait_s - second_s)} and ${saved_usd:.3f} "
            "of waiting"
        ),
    )


def _wait_s(lease: LeaseView, mean_items_per_s: float) -> float:
    """Return the expected time until the GPU worker has finished its chunk.

    If it has not finished an item lately, the time is at least as long as it has held the chunk.
    """
    if lease.items_per_s > 0:
        return lease.items_left / lease.items_per_s
    return max(lease.age_s, lease.items_left / mean_items_per_s if mean_items_per_s else 0.0)


def _second_attempt_s(lease: LeaseView, mean_items_per_s: float) -> float:
    return _FIXED_S + (lease.items_left / mean_items_per_s if mean_items_per_s else lease.age_s)


def _cost_usd(lease: LeaseView, seconds: float) -> float:
    return lease.offer.usd_per_hour * seconds / 3600
