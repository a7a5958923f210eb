"""Find the best allocation: how many GPU workers, alive or new, of which kind should do the remaining work. Pure.

For a given finish time, finding the cheapest allocation is a knapsack problem. GPU workers are taken greedily, those
with the lowest cost per item first, until all items are covered. If the limit on the number of GPU workers is reached
before that, a charge per GPU worker is added and raised until the items are covered; it favours faster ones. About
twenty finish times are tried, between the soonest possible and the latest that can save money, and the objective
(cheapest, fastest or balanced) chooses among them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from gpu_jobs.jobs.orders import Objective

_FINISH_TIMES = 20
_TOLERANCE = 0.02
"""Among allocations whose costs differ by less than this share, the one that ends soonest counts as the cheapest."""
_PAY_BACK = 1.0
"""A new GPU worker is worth its cold start only if it then works for at least this many times as long."""
_MAX_CHARGES = 12
_ROUNDING = 1e-9
_FOREVER_S = 1e9
_ENDLESS_ITEMS = 1e15


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """GPU workers of one kind, and what each of them can do and costs."""

    name: str
    """A unique name: their GPU job's, or, for new ones, their offer's."""
    is_new: bool
    """Whether they would have to be ordered; if not, they are alive."""
    platform: str
    max_workers: int
    ready_s: float
    """Expected time until each of them starts work."""
    items_per_s: float
    usd_per_s: float
    tail_items: float = 0.0
    """Items lost at the tail because chunks finish at different times."""
    unbilled_s: float = 0.0
    """The part of the tail that is not billed, since an idle GPU worker exits after one cold start's time."""
    least_billed_s: float = 0.0
    idle_s: float = 0.0
    is_start_billed: bool = True

    @property
    def usd_per_item(self) -> float:
        """Cost of an item while a GPU worker is at work."""
        return self.usd_per_s / self.items_per_s

    def items_by(self, finish_s: float) -> float:
        return max(0.0, self.items_per_s * (finish_s - self.ready_s) - self.tail_items)

    def usd_by(self, finish_s: float) -> float:
        lives_s = max(finish_s - self.unbilled_s, self.ready_s)
        if not self.is_start_billed:
            lives_s -= self.ready_s
        return self.usd_per_s * (max(lives_s, self.least_billed_s) + self.idle_s)

    @property
    def pays_back_s(self) -> float:
        """The earliest finish time for which starting one is worthwhile."""
        return (1 + _PAY_BACK) * self.ready_s if self.is_new else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """How many GPU workers of each candidate are used, when they finish, and what they cost."""

    counts: tuple[tuple[Candidate, int], ...]
    finish_s: float
    usd: float
    covers: bool = True
    """Whether all remaining items are done by `finish_s`."""

    @property
    def num_workers(self) -> int:
        return sum(count for _, count in self.counts)

    def of(self, candidate: Candidate) -> int:
        """Return the number of GPU workers of one candidate."""
        return next((count for each, count in self.counts if each.name == candidate.name), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The remaining work and its limits."""

    items: float
    max_workers: int
    platform_max_workers: dict[str, int]
    """Maximum number of GPU workers by platform; a platform that is missing has no limit."""
    latest_s: float | None
    """Time until the deadline, less a margin; None means that there is no deadline."""
    keeps_alive: bool = False
    """Whether all GPU workers alive are part of every allocation, whatever they cost."""


def best_allocation(candidates: Sequence[Candidate], task: Task, objective: Objective) -> Allocation | None:
    """Return the best allocation within the limits; None if no candidate can do any work.

    If the deadline cannot be met, this is the allocation that gets most done by then, and its `covers` is False.
    """
    usable = [candidate for candidate in candidates if candidate.max_workers > 0 and candidate.items_per_s > 0]
    if not usable:
        return None
    soonest = _soonest_s(usable, task)
    latest = max(_latest_s(usable, task), soonest)
    if task.latest_s is not None:
        latest = min(latest, task.latest_s)
    if latest < soonest:
        return _as_much_as_possible(usable, task, task.latest_s or soonest)
    ratio = (latest / soonest) ** (1 / (_FINISH_TIMES - 1)) if soonest else 1.0
    found = [
        allocation
        for at in range(_FINISH_TIMES)
        if (allocation := _cheapest(usable, task, soonest * ratio**at)) and allocation.covers
    ]
    return _pick(found, objective) if found else _as_much_as_possible(usable, task, latest)


def _pick(allocations: Sequence[Allocation], objective: Objective) -> Allocation:
    if objective == "fastest":
        return min(allocations, key=lambda allocation: (allocation.finish_s, allocation.usd))
    if objective == "balanced":
        return min(allocations, key=lambda allocation: (allocation.usd * allocation.finish_s, allocation.finish_s))
    least = min(allocation.usd for allocation in allocations)
    return min(
        (allocation for allocation in allocations if allocation.usd <= (1 + _TOLERANCE) * least),
        key=lambda allocation: allocation.finish_s,
    )


def _cheapest(candidates: Sequence[Candidate], task: Task, finish_s: float) -> Allocation | None:
    """Return the cheapest allocation that is done by `finish_s`; None if there is none."""
    usable = _useful(candidates, finish_s)

    def with_charge(charge_usd: float) -> Allocation:
        def rank(candidate: Candidate) -> float:
            if task.keeps_alive and not candidate.is_new:
                return -candidate.items_per_s
            return (candidate.usd_by(finish_s) + charge_usd) / candidate.items_by(finish_s)

        return _take(sorted(usable, key=rank), task, finish_s)

    allocation = with_charge(0.0)
    if allocation.covers or allocation.num_workers < task.max_workers:
        return allocation if allocation.covers else None
    charge_usd = max(each.usd_by(finish_s) for each in usable) / 8 or 1e-6
    for doublings in range(_MAX_CHARGES):
        allocation = with_charge(charge_usd * 2**doublings)
        if allocation.covers:
            return allocation
    return None


def _take(order: Iterable[Candidate], task: Task, finish_s: float) -> Allocation:
    """Return the allocation that results from taking candidates in this order."""
    counts, items_left = _counts(order, task, finish_s)
    if items_left < 0:  # the last GPU worker is not needed for all that time, so all finish sooner
        sooner_s = finish_s + items_left / sum(count * candidate.items_per_s for candidate, count in counts)
        finish_s = max(sooner_s, *(candidate.pays_back_s for candidate, _ in counts))
    usd = sum(count * candidate.usd_by(finish_s) for candidate, count in counts)
    return Allocation(counts=tuple(counts), finish_s=finish_s, usd=usd, covers=items_left <= 0)


def _counts(order: Iterable[Candidate], task: Task, finish_s: float) -> tuple[list[tuple[Candidate, int]], float]:
    """Take GPU workers in this order until the items are covered or a limit is reached; also return the items left."""
    counts: list[tuple[Candidate, int]] = []
    items, free, left = task.items, task.max_workers, dict(task.platform_max_workers)
    for candidate in order:
        each = candidate.items_by(finish_s)
        needed = (
            candidate.max_workers if task.keeps_alive and not candidate.is_new else math.ceil(max(0.0, items) / each)
        )
        count = min(candidate.max_workers, free, left.get(candidate.platform, free), needed)
        if count > 0:
            counts.append((candidate, count))
            items -= count * each
            items = 0.0 if abs(items) <= _ROUNDING * task.items else items
            free -= count
            left[candidate.platform] = left.get(candidate.platform, task.max_workers) - count
        if free <= 0 or (items <= 0 and not task.keeps_alive):
            break
    return counts, items


def _by_pace(candidates: Sequence[Candidate], finish_s: float) -> list[Candidate]:
    return sorted(_useful(candidates, finish_s), key=lambda each: -each.items_by(finish_s))


def _useful(candidates: Sequence[Candidate], finish_s: float) -> list[Candidate]:
    return [
        candidate for candidate in candidates if candidate.items_by(finish_s) > 0 and finish_s >= candidate.pays_back_s
    ]


def _soonest_s(candidates: Sequence[Candidate], task: Task) -> float:
    """Return when the fastest available GPU workers would be done, found by bisection."""

    def is_done_by(finish_s: float) -> bool:
        return _counts(_by_pace(candidates, finish_s), task, finish_s)[1] <= 0

    low = min(task.items / (max(1, task.max_workers) * max(each.items_per_s for each in candidates)), _FOREVER_S)
    high = max(1.0, 1.2 * low)
    while not is_done_by(high):
        low, high = high, 2 * high
        if high > _FOREVER_S:
            return high
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if is_done_by(middle) else (middle, high)
    return high


def _latest_s(candidates: Iterable[Candidate], task: Task) -> float:
    """Return when the GPU worker with the cheapest items would be done alone; a later finish saves nothing."""
    best = min(candidates, key=lambda each: each.usd_per_item)
    alone = best.ready_s + (task.items + best.tail_items) / best.items_per_s
    return max(alone, (1 + _PAY_BACK) * best.ready_s, best.least_billed_s)


def _as_much_as_possible(candidates: Sequence[Candidate], task: Task, finish_s: float) -> Allocation | None:
    """Return all GPU workers that can do anything by `finish_s`, to miss the deadline by as little as possible."""
    usable = _by_pace(candidates, finish_s)
    if not usable:
        return None
    return replace(_take(usable, replace(task, items=_ENDLESS_ITEMS), finish_s), covers=False)
