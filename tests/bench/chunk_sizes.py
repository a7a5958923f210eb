"""The chosen chunk size compared with other sizes, on small cases in the simulator.

Each case is one of `small_cases`, with speeds known from earlier campaigns and one second to lease and settle a chunk.
"""

import math
from dataclasses import dataclass, replace
from statistics import mean

from gpu_jobs.campaign.chunk_size import ChunkingLimits, first_chunk_boundaries
from gpu_jobs.dispatch import decide
from gpu_jobs.forecast.simulator import SimulatedWork
from gpu_jobs.workloads import load_workload
from tests.bench.small_cases import SmallCase, earlier, run

CHUNK_S = 1.0
PER_WORKER = (1, 2, 4, 8, 16, 32, 64)
_FINER = 50
_SEEDS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Dollars of one case with the chosen number of chunks, and with the best of the numbers in `PER_WORKER`."""

    num_chunks: int
    chosen_usd: float
    best_usd: float


def compare_cuts(case: SmallCase) -> Cut:
    """Compare all numbers of chunks on the case's seeds; the best is chosen afterwards."""
    case = replace(case, work=_finer(case.work), seeds=tuple(range(case.seeds[0], case.seeds[0] + _SEEDS)))
    offers = [behaviour.offer for behaviour in case.behaviours]
    limits = ChunkingLimits(max_workers=case.policy.max_workers, offers=offers, pace=lambda _: 1 / case.work.item_s)
    boundaries, _ = first_chunk_boundaries([1.0] * case.work.num_items, load_workload("noop", {}), limits)
    counts = {each * case.policy.max_workers for each in PER_WORKER} | {len(boundaries) - 1}
    usd = {count: _usd(case, count) for count in sorted(counts)}
    return Cut(num_chunks=len(boundaries) - 1, chosen_usd=usd[len(boundaries) - 1], best_usd=min(usd.values()))


def _finer(work: SimulatedWork) -> SimulatedWork:
    """Return the same work in more and equal items, so that every number of chunks divides it evenly."""
    return replace(
        work, items_per_chunk=_FINER * work.items_per_chunk, item_s=work.item_s / _FINER, weight=lambda _: 1.0
    )


def _usd(case: SmallCase, num_chunks: int) -> float:
    """Return the mean dollars; infinite if a campaign misses its deadline."""
    per_chunk = round(case.work.num_items / num_chunks)
    work = replace(case.work, num_chunks=num_chunks, items_per_chunk=per_chunk, chunk_overhead_s=CHUNK_S)
    outcomes = run(replace(case, work=work), decide, earlier(case.behaviours, work))
    return mean(each.usd if each.is_complete else math.inf for each in outcomes)
