"""GPU workers as their heartbeats show them: what each did, how long it ran, and what its GPU job cost. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import zip_longest
from typing import NamedTuple

from gpu_jobs.jobs.costs import BilledSeconds, WorkerSeconds, billed_s, classes_of, usd_for
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.ledger.journal import Ordered
from gpu_jobs.ledger.records import Heartbeat


@dataclass(frozen=True, slots=True)
class GpuWorker:
    """One GPU worker by its last heartbeat. All times are by the store's clock, in seconds since the epoch."""

    heartbeat: Heartbeat
    seen_at: float
    """The store's stamp of the last heartbeat."""

    @property
    def began_at(self) -> float:
        return self.seen_at - self.heartbeat.seconds.lived_s

    @property
    def ready_at(self) -> float:
        """When the model was loaded, so that the GPU worker could work."""
        return self.began_at + self.heartbeat.seconds.starting + self.heartbeat.seconds.model_load

    @property
    def is_over(self) -> bool:
        return self.heartbeat.status == "over"


class _BilledLifetime(NamedTuple):
    """A period in which one container ran, as it is billed to its GPU job."""

    worker: GpuWorker | None
    """None: the container never sent a heartbeat."""
    before_s: float
    """The part of `lived_s` before the GPU worker began."""
    lived_s: float


class GpuWorkers:
    """All GPU workers that a campaign ever had, by GPU job."""

    def __init__(self, found: Iterable[tuple[Heartbeat, float]]) -> None:
        """Group heartbeats by GPU job; each comes with the store's stamp of it."""
        self._by_order: dict[str, list[GpuWorker]] = {}
        for heartbeat, seen_at in found:
            self._by_order.setdefault(heartbeat.order, []).append(GpuWorker(heartbeat, seen_at))

    def __iter__(self) -> Iterator[GpuWorker]:
        return (worker for workers in self._by_order.values() for worker in workers)

    def __len__(self) -> int:
        return sum(map(len, self._by_order.values()))

    def of(self, order: str) -> list[GpuWorker]:
        return self._by_order.get(order, [])

    def items_done_by(self, order: str) -> int:
        return sum(worker.heartbeat.items_done for worker in self.of(order))

    def checkpoints_by(self, order: str) -> int:
        """How many checkpoints of long items the GPU workers of an order have stored."""
        return sum(worker.heartbeat.checkpoints for worker in self.of(order))

    def reasons(self, order: str) -> str:
        """Why the GPU workers of an order ended, in their own words."""
        words = {worker.heartbeat.reason for worker in self.of(order)}
        return "; ".join(sorted(filter(None, words)))

    def failures(self, order: str) -> list[Failure]:
        """Why GPU workers of an order failed, as they report themselves."""
        return [worker.heartbeat.failure for worker in self.of(order) if worker.heartbeat.failure]

    def seconds(self, order: str) -> WorkerSeconds:
        """What the GPU workers of an order spent their time on, added up."""
        return sum((worker.heartbeat.seconds for worker in self.of(order)), WorkerSeconds())

    def facts(self) -> dict[str, list[str]]:
        """All values of each fact that rows may depend on (`device`, `engine`, ...), by name."""
        found: dict[str, set[str]] = {}
        for worker in self:
            for name, value in worker.heartbeat.facts.items():
                found.setdefault(name, set()).add(value)
        return {name: sorted(values) for name, values in sorted(found.items())}

    def start_s(self, ordered: Ordered, worker: GpuWorker) -> float:
        """Seconds from the order until the GPU worker was ready to work.

        For a restarted container they count from the last heartbeat of the GPU worker before it.
        """
        earlier = (each for each in self.of(worker.heartbeat.order) if each.heartbeat.slot == worker.heartbeat.slot)
        before = [each.seen_at for each in earlier if each.began_at < worker.began_at]
        return max(0.0, worker.ready_at - max([ordered.at.timestamp(), *before]))

    def usd(self, ordered: Ordered, until: datetime) -> float:
        """What a GPU job has cost up to `until`, by its offer's rules; never more than was reserved for it."""
        offer = ordered.order.offer
        billed = sum(billed_s(offer, lifetime.lived_s) for lifetime in self._lifetimes(ordered, until))
        return min(ordered.order.reserved_usd, usd_for(offer, billed))

    def billed(self, ordered: Ordered, until: datetime, *, is_over: bool) -> BilledSeconds:
        """Every second that is billed for a GPU job, by what it was spent on."""
        total = BilledSeconds()
        for lifetime in self._lifetimes(ordered, until):
            is_well = lifetime.worker is not None and (lifetime.worker.is_over or not is_over)
            billed = billed_s(ordered.order.offer, lifetime.lived_s)
            total += classes_of(billed, _account(lifetime.worker), lifetime.before_s, is_over=is_well)
        return total

    def _lifetimes(self, ordered: Ordered, until: datetime) -> list[_BilledLifetime]:
        """The billed lifetimes of a GPU job's GPU workers; a container that was restarted has several."""
        lifetimes: list[_BilledLifetime] = []
        is_start_billed = ordered.order.offer.is_start_billed
        by_slot: dict[int, list[GpuWorker]] = {}
        for worker in self.of(ordered.order.name):
            by_slot.setdefault(worker.heartbeat.slot, []).append(worker)
        for slot in range(ordered.order.num_workers):
            workers = sorted(by_slot.get(slot, []), key=lambda each: each.began_at)
            since = ordered.at.timestamp()
            for worker, follower in zip_longest(workers, workers[1:]):
                ended = until.timestamp()
                if worker.is_over:
                    ended = min(ended, worker.seen_at)
                elif follower is not None:
                    ended = min(ended, follower.began_at)
                before_s = max(0.0, worker.began_at - since)
                if not is_start_billed:
                    since, before_s = since + before_s, 0.0
                lifetimes.append(_BilledLifetime(worker, before_s, max(0.0, ended - since)))
                since = max(since, ended)
            if not workers and is_start_billed:
                lifetimes.append(_BilledLifetime(None, 0.0, max(0.0, until.timestamp() - since)))
        return lifetimes


def _account(worker: GpuWorker | None) -> WorkerSeconds | None:
    """What a GPU worker spent its time on, by its own report; seconds spent on error rows count as quarantined."""
    if worker is None:
        return None
    beat = worker.heartbeat
    if not (beat.items_failed and beat.items_done):
        return beat.seconds
    failed_s = beat.seconds.working * beat.items_failed / beat.items_done
    return replace(beat.seconds, quarantined=beat.seconds.quarantined + failed_s)
