"""What campaigns measured of a platform, for the comparison; from journals and GPU workers' heartbeats."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.forecast.comparison import Figures, Volume, simulated
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.ledger.journal import Ended, Journal, Ordered
from gpu_jobs.ledger.ledger import Heartbeat
from gpu_jobs.store import campaign_names, open_store
from gpu_jobs.telemetry.latencies import added, quantile_s
from gpu_jobs.telemetry.measure import ONE_AT_LEAST_S, samples_from
from gpu_jobs.telemetry.workers import Lives

_P95 = 0.95
_NOT_THERE = (Failure.NO_CAPACITY, Failure.QUOTA, Failure.PREEMPTED, Failure.LOST, Failure.TIMEOUT, Failure.UNKNOWN)
"""Failures that mean: the platform had no GPU worker for us, or took it away before it did anything."""
_OUR_OWN = (Failure.REJECTED, Failure.BALANCE, Failure.IMAGE)
"""Failures that say nothing about a platform's availability."""


class Together(NamedTuple):
    """The moment when the most GPU workers were at work at the same time."""

    num_workers: int
    ramp_up_s: float
    """Seconds from the order of the first of them until the last one started work."""
    items_per_s: float
    """Highest total throughput, which may have been at another moment."""


def from_campaign(
    campaign: Campaign, platform: str, volume: Volume, known: Sequence[Offer], *, warm: Campaign | None = None
) -> Figures | None:
    """Return what a campaign measured on one platform, and what a month of the same would cost.

    None if it measured nothing.

    Args:
        campaign: The campaign that measured cold starts and everything else.
        platform: The platform of both campaigns.
        volume: The volume of the month.
        known: The platform's offers, as its settings define them.
        warm: A campaign that began when the first had just ended; only its warm starts are used.
    """
    orders = _orders_on(campaign, platform)
    lives = Lives(campaign.ledger.heartbeats())
    samples = samples_from(campaign.journal.read(), lives)
    paces = {key: each.items_per_s for key, each in samples.items() if key.platform == platform and each.items_per_s}
    if not paces:
        return None
    key = max(paces, key=lambda each: len(paces[each]))
    offer = next(ordered.order.offer for ordered in orders.values() if ordered.order.offer.key == key)
    cold_start_s = _mean(samples[key].starts_s)
    start_s = offer.cold_start_p50_s if cold_start_s is None else cold_start_s
    pace = sum(paces[key]) / len(paces[key])
    together = _together(orders, lives)
    availability, num_orders = availability_of(campaign, platform)
    beats = [beat for name in orders for beat in lives.of(name)]
    return replace(
        simulated(offer, start_s, pace, volume, known),
        machine=offer.machine,
        cold_start_s=cold_start_s,
        warm_start_s=_mean([start for each in (campaign, warm) if each for start in _warm_starts(each, platform)]),
        keeps_warm=any(each.idle_s for each in known),
        all_items_per_s=together.items_per_s,
        p95_s=quantile_s(added(beat.latencies for beat in beats), _P95),
        ramp_up_s=together.ramp_up_s,
        ramp_up_workers=together.num_workers,
        availability=availability,
        num_orders=num_orders,
    )


def has_warm_start(campaign: Campaign, platform: str) -> bool:
    """Whether a campaign has measured a warm start on a platform."""
    return bool(_warm_starts(campaign, platform))


def availability_of(campaign: Campaign, platform: str) -> tuple[float | None, int]:
    """Return the share of GPU jobs on a platform that got GPU workers, and the number of GPU jobs counted.

    All campaigns under the same store root count. GPU jobs that were stopped before they worked, or that failed through
    our own fault before they began, are not counted.
    """
    root, _, _ = campaign.store.uri.rpartition("/")
    found = []
    for name in campaign_names(open_store(root)):
        state = Journal(open_store(f"{root}/{name}")).read()
        ends = (end for order, end in state.ended.items() if state.orders[order].order.offer.platform == platform)
        found += [had for end in ends if (had := _was_had(end)) is not None]
    return (sum(found) / len(found) if found else None), len(found)


def _was_had(end: Ended) -> bool | None:
    """Whether a GPU job got GPU workers; None if its end does not show that."""
    if end.items_done or end.checkpoints:
        return True
    if end.failure is None:
        return None if end.reason.startswith("stopped") else True
    return None if end.failure in _OUR_OWN else end.failure not in _NOT_THERE


def _orders_on(campaign: Campaign, platform: str) -> dict[str, Ordered]:
    orders = campaign.journal.read().orders
    return {name: ordered for name, ordered in orders.items() if ordered.order.offer.platform == platform}


def _warm_starts(campaign: Campaign, platform: str) -> list[float]:
    samples = samples_from(campaign.journal.read(), Lives(campaign.ledger.heartbeats()))
    return [start for key, each in samples.items() if key.platform == platform for start in each.warm_starts_s]


def _together(orders: Mapping[str, Ordered], lives: Lives) -> Together:
    at_work = [
        (ordered.at.timestamp(), lives.ready_at(beat), lives.seen_at(beat), _pace(beat))
        for name, ordered in orders.items()
        for beat in lives.of(name)
        if beat.items_done and beat.seconds.get("working", 0.0) >= ONE_AT_LEAST_S
    ]
    moments = []
    for _, now, _, _ in sorted(at_work, key=lambda each: each[1]):
        others = [each for each in at_work if each[1] <= now < each[2]]
        moments.append(Together(len(others), now - min(each[0] for each in others), sum(each[3] for each in others)))
    most = max(moments, key=lambda each: each.num_workers)
    return most._replace(items_per_s=max(each.items_per_s for each in moments))


def _pace(beat: Heartbeat) -> float:
    return beat.items_done / beat.seconds["working"]


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None
