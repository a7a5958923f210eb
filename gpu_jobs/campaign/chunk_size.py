"""How large chunks are: what a campaign's first cut is made for, and why, in words. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpu_jobs.durations import duration
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.ledger.ranges import cut_by_weight
from gpu_jobs.workloads.base import BaseWorkload

_CHUNKS_PER_WORKER, _MEASURED_CHUNKS_PER_WORKER = 8, 16
"""Smaller ones make better plans (`tests/bench/chunk_sizes.py`); while the pace is unknown, they could be too small."""
_LIFE_SHARE = 0.25
"""Of the longest life that a platform allows a GPU worker, what one chunk may take of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What chunks are cut for."""

    max_workers: int
    offers: Sequence[Offer] = ()
    """That may be used."""
    pace: Callable[[BaseWorkload], float | None] = lambda _: None
    """Weight a second that a GPU worker of speed 1 did in earlier campaigns; None: unknown."""


def first_cut(
    weights: Sequence[float], workload: BaseWorkload, fleet: Fleet, *, asked: float | None = None
) -> tuple[list[int], str]:
    """Where chunks begin and end, and why.

    Args:
        weights: of the items, in order.
        workload: that will be done.
        fleet: that will do it.
        asked: weight of a chunk; None: chosen.
    """
    target, why = (asked, f"{asked:g} was asked for") if asked else _chosen(weights, workload, fleet)
    cuts = cut_by_weight(weights, target)
    return cuts, f"{len(cuts) - 1} chunks of about {sum(weights) / (len(cuts) - 1):.4g} weight each: {why}"


def _chosen(weights: Sequence[float], workload: BaseWorkload, fleet: Fleet) -> tuple[float, str]:
    """The weight of a chunk, and what decides it."""
    total, pace = sum(weights), fleet.pace(workload)
    each = _MEASURED_CHUNKS_PER_WORKER if pace else _CHUNKS_PER_WORKER
    target = total / (each * fleet.max_workers)
    if pace and (limited := _within_limits(target, fleet.offers, pace)):
        return limited
    batch = min(workload.batch_items * total / len(weights), total / fleet.max_workers)
    if workload.batch_items > 1 and target < batch:
        return batch, f"a batch of {workload.batch_items} items, or one for each of {fleet.max_workers} GPU workers"
    if len(weights) < each * fleet.max_workers:
        return target, f"fewer than {each} for each of {fleet.max_workers} GPU workers, since items are not cut"
    return target, f"{each} for each of {fleet.max_workers} GPU workers, so that they end together"


def _within_limits(target: float, offers: Sequence[Offer], pace: float) -> tuple[float, str] | None:
    """A chunk that is worth a cold start and ends long before its GPU worker has to; None: `target` does.

    By the slowest GPU worker that may be had.
    """
    weight_per_s = pace * min((offer.worker_speed for offer in offers), default=1.0)
    start_s = min((offer.cold_start_p50_s for offer in offers), default=0.0)
    life_s = min((3600 * offer.max_hours - offer.cold_start_p90_s for offer in offers if offer.max_hours), default=0.0)
    if target < start_s * weight_per_s:
        return start_s * weight_per_s, f"{duration(start_s)} of work, so that each is worth the shortest cold start"
    if life_s and target > _LIFE_SHARE * life_s * weight_per_s:
        most_s = _LIFE_SHARE * life_s
        return most_s * weight_per_s, f"{duration(most_s)} of work, a quarter of a GPU worker's longest life"
    return None
