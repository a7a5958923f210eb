"""Choose the size of a campaign's chunks when it is planned, and explain the choice in words. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpu_jobs.durations import duration
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.ledger.ranges import cut_by_weight
from gpu_jobs.workloads.base import BaseWorkload

_CHUNKS_PER_WORKER, _MEASURED_CHUNKS_PER_WORKER = 8, 16
"""Smaller chunks make better plans (`tests/bench/chunk_sizes.py`); with an unknown pace they could be too small."""
_LIFETIME_SHARE = 0.25
"""The largest share of a GPU worker's longest lifetime on its platform that one chunk may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkingLimits:
    """What the size of chunks depends on, besides the items and the workload."""

    max_workers: int
    offers: Sequence[Offer] = ()
    """The offers that the policy allows."""
    pace: Callable[[BaseWorkload], float | None] = lambda _: None
    """Weight per second that a GPU worker of speed 1 reached in earlier campaigns; None if it is unknown."""


def first_chunk_boundaries(
    weights: Sequence[float], workload: BaseWorkload, limits: ChunkingLimits, *, asked: float | None = None
) -> tuple[list[int], str]:
    """Return where chunks begin and end, and why.

    Args:
        weights: the items' weights, in order.
        workload: the campaign's workload.
        limits: the GPU workers that may be used.
        asked: the weight of a chunk if the caller has set it; None: it is chosen.
    """
    target, why = (asked, f"{asked:g} was requested") if asked else _chosen(weights, workload, limits)
    boundaries = cut_by_weight(weights, target)
    num_chunks = len(boundaries) - 1
    return boundaries, f"{num_chunks} chunks of about {sum(weights) / num_chunks:.4g} weight each: {why}"


def _chosen(weights: Sequence[float], workload: BaseWorkload, limits: ChunkingLimits) -> tuple[float, str]:
    """Choose the weight of a chunk; return it with the reason."""
    total, pace = sum(weights), limits.pace(workload)
    each = _MEASURED_CHUNKS_PER_WORKER if pace else _CHUNKS_PER_WORKER
    target = total / (each * limits.max_workers)
    if pace and (adjusted := _adjusted_to_offers(target, limits.offers, pace)):
        return adjusted
    batch = min(workload.batch_items * total / len(weights), total / limits.max_workers)
    if workload.batch_items > 1 and target < batch:
        return batch, f"a batch of {workload.batch_items} items, or one for each of {limits.max_workers} GPU workers"
    if len(weights) < each * limits.max_workers:
        return target, f"fewer than {each} for each of {limits.max_workers} GPU workers, since items are not divided"
    return target, f"{each} for each of {limits.max_workers} GPU workers, so that all finish at about the same time"


def _adjusted_to_offers(target: float, offers: Sequence[Offer], pace: float) -> tuple[float, str] | None:
    """Make a chunk long enough to be worth a cold start, and short compared with a GPU worker's lifetime.

    The slowest available GPU worker decides. Returns None if `target` fits already.
    """
    weight_per_s = pace * min((offer.worker_speed for offer in offers), default=1.0)
    start_s = min((offer.cold_start_p50_s for offer in offers), default=0.0)
    lifetimes_s = (3600 * offer.max_hours - offer.cold_start_p90_s for offer in offers if offer.max_hours)
    lifetime_s = min(lifetimes_s, default=0.0)
    if target < start_s * weight_per_s:
        return start_s * weight_per_s, f"{duration(start_s)} of work, so that each is worth the shortest cold start"
    if lifetime_s and target > _LIFETIME_SHARE * lifetime_s * weight_per_s:
        most_s = _LIFETIME_SHARE * lifetime_s
        return most_s * weight_per_s, f"{duration(most_s)} of work, a quarter of a GPU worker's longest lifetime"
    return None
