"""What a campaign has measured on each offer, from its journal and its GPU workers' heartbeats. Pure."""

from collections import defaultdict
from collections.abc import Mapping

from gpu_jobs.jobs.costs import usd_for
from gpu_jobs.jobs.failures import TREATMENTS, Failure
from gpu_jobs.jobs.offers import OfferKey
from gpu_jobs.ledger.journal import JournalState
from gpu_jobs.telemetry.samples import Evidence, Samples
from gpu_jobs.telemetry.workers import GpuWorkers

ONE_AT_LEAST_S = 1.0
"""A GPU worker that has worked for less time than this gives no measurement of speed."""


def samples_from(journal: JournalState, workers: GpuWorkers) -> dict[OfferKey, Samples]:
    """The single measurements on each offer, for forecasts and comparisons."""
    starts: dict[OfferKey, list[float]] = defaultdict(list)
    warm_starts: dict[OfferKey, list[float]] = defaultdict(list)
    paces: dict[OfferKey, list[float]] = defaultdict(list)
    hours: dict[OfferKey, float] = defaultdict(float)
    orders: dict[OfferKey, list[Failure | None]] = defaultdict(list)
    for name, ordered in journal.orders.items():
        key = ordered.order.offer.key
        if end := journal.ended.get(name):
            orders[key].append(end.failure if not end.items_done else None)
        for worker in workers.of(name):
            beat = worker.heartbeat
            hours[key] += beat.seconds.lived_s / 3600
            if beat.seconds.working:
                (warm_starts if beat.is_warm else starts)[key].append(workers.start_s(ordered, worker))
            if beat.items_done and beat.seconds.working >= ONE_AT_LEAST_S:
                paces[key].append(worker.heartbeat.mean_items_per_s)
    return {
        key: Samples(
            starts_s=tuple(starts[key]),
            warm_starts_s=tuple(warm_starts[key]),
            items_per_s=tuple(paces[key]),
            orders=len(orders[key]),
            failed_orders=sum(failure is not None and TREATMENTS[failure].is_error for failure in orders[key]),
            worker_hours=hours[key],
            preemptions=sum(failure is Failure.PREEMPTED for failure in orders[key]),
        )
        for key in {*hours, *orders}
    }


def evidence_from(
    journal: JournalState, workers: GpuWorkers, earlier: Mapping[OfferKey, Evidence]
) -> dict[OfferKey, Evidence]:
    """The sums for each offer over this campaign and earlier ones, for `decide`.

    A GPU worker counts once it has done an item. Warm starts count as well: where a platform keeps containers, the
    next GPU worker may start in one too.
    """
    found = dict(earlier)
    for name, ordered in journal.orders.items():
        for worker in workers.of(name):
            beat = worker.heartbeat
            if not beat.items_done:
                continue
            known = found.get(ordered.order.offer.key, Evidence())
            found[ordered.order.offer.key] = Evidence(
                items=known.items + beat.items_done,
                working_s=known.working_s + beat.seconds.working,
                starts=known.starts + 1,
                start_s=known.start_s + workers.start_s(ordered, worker),
            )
    return found


def hedged_usd(journal: JournalState, workers: GpuWorkers) -> float:
    """Dollars spent on chunks that another GPU worker settled first."""
    return sum(
        usd_for(ordered.order.offer, worker.heartbeat.seconds.hedged)
        for name, ordered in journal.orders.items()
        for worker in workers.of(name)
    )
