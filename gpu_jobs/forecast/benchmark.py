"""What campaigns measured of a platform, for the comparison; from journals and GPU workers' heartbeats."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.forecast.comparison import Figures, Volume, simulated
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.jobs.orders import JobOutcome
from gpu_jobs.ledger.journal import Ended, Journal, Ordered
from gpu_jobs.store import campaign_names, open_store
from gpu_jobs.telemetry.latencies import added, quantile_s
from gpu_jobs.telemetry.measure import ONE_AT_LEAST_S, samples_from
from gpu_jobs.telemetry.samples import Samples
from gpu_jobs.telemetry.workers import GpuWorkers

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
    journal, workers = campaign.journal.read(), campaign.workers()
    orders = {name: each for name, each in journal.orders.items() if each.order.offer.platform == platform}
    samples = samples_from(journal, workers)
    paces = {key: each.items_per_s for key, each in samples.items() if key.platform == platform and each.items_per_s}
    if not paces:
        return None
    key = max(paces, key=lambda each: len(paces[each]))
    offer = next(ordered.order.offer for ordered in orders.values() if ordered.order.offer.key == key)
    cold_start_s = _mean(samples[key].starts_s)
    start_s = offer.cold_start_p50_s if cold_start_s is None else cold_start_s
    pace = sum(paces[key]) / len(paces[key])
    together = _together(orders, workers)
    availability, num_orders = availability_of(campaign, platform)
    beats = [worker.heartbeat for name in orders for worker in workers.of(name)]
    warm_starts = [*_warm_starts(samples, platform), *(measured_warm_starts(warm, platform) if warm else [])]
    return replace(
        simulated(offer, start_s, pace, volume, known),
        machine=offer.machine,
        cold_start_s=cold_start_s,
        warm_start_s=_mean(warm_starts),
        keeps_warm=any(each.idle_s for each in known),
        all_items_per_s=together.items_per_s,
        p95_s=quantile_s(added(beat.latencies for beat in beats), _P95),
        ramp_up_s=together.ramp_up_s,
        ramp_up_workers=together.num_workers,
        availability=availability,
        num_orders=num_orders,
    )


def measured_warm_starts(campaign: Campaign, platform: str) -> list[float]:
    """Seconds of each warm start that a campaign has measured on a platform."""
    return _warm_starts(samples_from(campaign.journal.read(), campaign.workers()), platform)


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
        return None if end.outcome is JobOutcome.STOPPED else True
    return None if end.failure in _OUR_OWN else end.failure not in _NOT_THERE


def _warm_starts(samples: Mapping[OfferKey, Samples], platform: str) -> list[float]:
    return [start for key, each in samples.items() if key.platform == platform for start in each.warm_starts_s]


def _together(orders: Mapping[str, Ordered], workers: GpuWorkers) -> Together:
    at_work = [
        (ordered.at.timestamp(), worker)
        for name, ordered in orders.items()
        for worker in workers.of(name)
        if worker.heartbeat.items_done and worker.heartbeat.seconds.working >= ONE_AT_LEAST_S
    ]
    moments = []
    for _, newest in sorted(at_work, key=lambda each: each[1].ready_at):
        now = newest.ready_at
        others = [each for each in at_work if each[1].ready_at <= now < each[1].seen_at]
        ramp_up_s = now - min(ordered_at for ordered_at, _ in others)
        moments.append(Together(len(others), ramp_up_s, sum(worker.heartbeat.mean_items_per_s for _, worker in others)))
    most = max(moments, key=lambda each: each.num_workers)
    return most._replace(items_per_s=max(each.items_per_s for each in moments))


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None
