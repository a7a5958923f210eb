"""Which GPU workers, new ones and those alive, would do what is left best: cheapest, fastest, or in between. Pure.

For a finish time, the cheapest mix is a knapsack: take the GPU workers that cost least for what each gets done by then,
as many as there are, until all is covered; where the number of GPU workers is what binds, a charge for each of them,
raised until the mix fits, favours faster ones. Some twenty finish times are tried between the soonest possible and the
latest that makes sense, and the objective picks.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from gpu_jobs.jobs.orders import Objective

_FINISH_TIMES = 20
_TOLERANCE = 0.02
"""Of two mixes that cost nearly the same, the one that ends sooner is the cheapest."""
_PAY_BACK = 1.0
"""A new GPU worker must have so many times its cold start's seconds to work."""
_MAX_CHARGES = 12
_ROUNDING = 1e-9
_FOREVER_S = 1e9
_ENDLESS = 1e15


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """GPU workers of one kind, and what each of them does and costs."""

    name: str
    """Of the GPU job that they are in, or of the offer that they would be new on; unique."""
    is_new: bool
    platform: str
    most: int
    ready_s: float
    """Until each is at work, expected."""
    items_per_s: float
    usd_per_s: float
    tail_items: float = 0.0
    """That it does not get done because chunks end at different times."""
    unbilled_s: float = 0.0
    """Of that, what is not paid for, since it leaves when it has waited for a cold start's time."""
    least_billed_s: float = 0.0
    idle_s: float = 0.0
    is_start_billed: bool = True

    @property
    def usd_per_item(self) -> float:
        """While it works."""
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
        """The soonest finish for which it is worth its start."""
        return (1 + _PAY_BACK) * self.ready_s if self.is_new else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """So many GPU workers of each source, and what comes of it."""

    counts: tuple[tuple[Source, int], ...]
    finish_s: float
    usd: float
    covers: bool = True
    """All that is left gets done by then."""

    @property
    def num_workers(self) -> int:
        return sum(count for _, count in self.counts)

    def of(self, source: Source) -> int:
        return next((count for each, count in self.counts if each.name == source.name), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is left, and within which limits."""

    items: float
    max_workers: int
    platform_most: dict[str, int]
    """GPU workers that each platform may have; missing: any number."""
    latest_s: float | None
    """Until the deadline, less a margin; None: there is none."""
    keeps_alive: bool = False
    """GPU workers that live are all taken, whatever they cost: they work until they are stopped."""


def best_mix(sources: Sequence[Source], task: Task, objective: Objective) -> Mix | None:
    """The best mix that meets the limits; else the soonest, which then `covers` nothing in time; None: no source."""
    usable = [source for source in sources if source.most > 0 and source.items_per_s > 0]
    if not usable:
        return None
    soonest = _soonest_s(usable, task)
    latest = max(_latest_s(usable, task), soonest)
    if task.latest_s is not None:
        latest = min(latest, task.latest_s)
    if latest < soonest:
        return _as_much_as_possible(usable, task, task.latest_s or soonest)
    ratio = (latest / soonest) ** (1 / (_FINISH_TIMES - 1)) if soonest else 1.0
    found = [mix for at in range(_FINISH_TIMES) if (mix := _cheapest(usable, task, soonest * ratio**at)) and mix.covers]
    return _pick(found, objective) if found else _as_much_as_possible(usable, task, latest)


def _pick(mixes: Sequence[Mix], objective: Objective) -> Mix:
    if objective == "fastest":
        return min(mixes, key=lambda mix: (mix.finish_s, mix.usd))
    if objective == "balanced":
        return min(mixes, key=lambda mix: (mix.usd * mix.finish_s, mix.finish_s))
    least = min(mix.usd for mix in mixes)
    return min((mix for mix in mixes if mix.usd <= (1 + _TOLERANCE) * least), key=lambda mix: mix.finish_s)


def _cheapest(sources: Sequence[Source], task: Task, finish_s: float) -> Mix | None:
    """The cheapest mix that is done by `finish_s`; None if there is none."""
    able = _able(sources, finish_s)

    def per_item(charge_usd: float) -> Mix:
        def rank(source: Source) -> float:
            if task.keeps_alive and not source.is_new:
                return -source.items_per_s
            return (source.usd_by(finish_s) + charge_usd) / source.items_by(finish_s)

        return _take(sorted(able, key=rank), task, finish_s)

    mix = per_item(0.0)
    if mix.covers or mix.num_workers < task.max_workers:
        return mix if mix.covers else None
    charge_usd = max(each.usd_by(finish_s) for each in able) / 8 or 1e-6
    for doublings in range(_MAX_CHARGES):
        mix = per_item(charge_usd * 2**doublings)
        if mix.covers:
            return mix
    return None


def _take(order: Iterable[Source], task: Task, finish_s: float) -> Mix:
    """The mix of GPU workers taken in this order."""
    counts, items_left = _counts(order, task, finish_s)
    if items_left < 0:  # the last of them is not needed to the full: all are done sooner
        sooner_s = finish_s + items_left / sum(count * source.items_per_s for source, count in counts)
        finish_s = max(sooner_s, *(source.pays_back_s for source, _ in counts))
    usd = sum(count * source.usd_by(finish_s) for source, count in counts)
    return Mix(counts=tuple(counts), finish_s=finish_s, usd=usd, covers=items_left <= 0)


def _counts(order: Iterable[Source], task: Task, finish_s: float) -> tuple[list[tuple[Source, int]], float]:
    """Take GPU workers in this order until all items are covered or no more may be taken; also the items left over."""
    counts: list[tuple[Source, int]] = []
    items, free, left = task.items, task.max_workers, dict(task.platform_most)
    for source in order:
        each = source.items_by(finish_s)
        useful = source.most if task.keeps_alive and not source.is_new else math.ceil(max(0.0, items) / each)
        count = min(source.most, free, left.get(source.platform, free), useful)
        if count > 0:
            counts.append((source, count))
            items -= count * each
            items = 0.0 if abs(items) <= _ROUNDING * task.items else items
            free -= count
            left[source.platform] = left.get(source.platform, task.max_workers) - count
        if free <= 0 or (items <= 0 and not task.keeps_alive):
            break
    return counts, items


def _by_pace(sources: Sequence[Source], finish_s: float) -> list[Source]:
    return sorted(_able(sources, finish_s), key=lambda each: -each.items_by(finish_s))


def _able(sources: Sequence[Source], finish_s: float) -> list[Source]:
    return [source for source in sources if source.items_by(finish_s) > 0 and finish_s >= source.pays_back_s]


def _soonest_s(sources: Sequence[Source], task: Task) -> float:
    """When the fastest GPU workers that may be had would be done, by bisection."""

    def is_done_by(finish_s: float) -> bool:
        return _counts(_by_pace(sources, finish_s), task, finish_s)[1] <= 0

    low = min(task.items / (max(1, task.max_workers) * max(each.items_per_s for each in sources)), _FOREVER_S)
    high = max(1.0, 1.2 * low)
    while not is_done_by(high):
        low, high = high, 2 * high
        if high > _FOREVER_S:
            return high
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if is_done_by(middle) else (middle, high)
    return high


def _latest_s(sources: Iterable[Source], task: Task) -> float:
    """When the GPU worker that does an item for least would be done alone; later than that saves nothing."""
    best = min(sources, key=lambda each: each.usd_per_item)
    alone = best.ready_s + (task.items + best.tail_items) / best.items_per_s
    return max(alone, (1 + _PAY_BACK) * best.ready_s, best.least_billed_s)


def _as_much_as_possible(sources: Sequence[Source], task: Task, finish_s: float) -> Mix | None:
    """All GPU workers that can do anything by then: the deadline will be missed by as little as possible."""
    able = _by_pace(sources, finish_s)
    if not able:
        return None
    return replace(_take(able, replace(task, items=_ENDLESS), finish_s), covers=False)
