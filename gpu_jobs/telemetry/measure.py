"""What a campaign has measured of each offer, by its journal and its GPU workers' heartbeats. Pure."""

from collections import defaultdict

from gpu_jobs.jobs.failures import TREATMENTS, Failure
from gpu_jobs.jobs.offers import OfferKey
from gpu_jobs.ledger.journal import JournalState
from gpu_jobs.telemetry.samples import Samples
from gpu_jobs.telemetry.workers import Lives

ONE_AT_LEAST_S = 1.0
"""A GPU worker that has worked for less tells nothing of its speed."""


def samples_from(state: JournalState, lives: Lives) -> dict[OfferKey, Samples]:
    """As `samples_of`. Pure."""
    starts: dict[OfferKey, list[float]] = defaultdict(list)
    warm_starts: dict[OfferKey, list[float]] = defaultdict(list)
    paces: dict[OfferKey, list[float]] = defaultdict(list)
    hours: dict[OfferKey, float] = defaultdict(float)
    orders: dict[OfferKey, list[Failure | None]] = defaultdict(list)
    for name, ordered in state.orders.items():
        key = ordered.order.offer.key
        if end := state.ended.get(name):
            orders[key].append(end.failure if not end.items_done else None)
        for beat in lives.of(name):
            working_s = beat.seconds.working
            hours[key] += beat.seconds.lived_s / 3600
            if working_s:
                (warm_starts if beat.is_warm else starts)[key].append(lives.start_s(ordered, beat))
            if beat.items_done and working_s >= ONE_AT_LEAST_S:
                paces[key].append(beat.mean_items_per_s)
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
