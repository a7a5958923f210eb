"""Simulated GPU jobs and GPU workers: they start, work, share chunks, fail, exit and are billed."""

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from gpu_jobs.dispatch import OrderEnd, StartJob
from gpu_jobs.forecast.simulator.model import (
    OfferBehaviour,
    SimulatedChunk,
    SimulatedJob,
    SimulatedWork,
    SimulatedWorker,
)
from gpu_jobs.jobs.costs import CLASSES, billed_s, usd_for, worst_case_usd
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.offers import OfferKey

START = datetime(2000, 1, 1, tzinfo=UTC)
"""The time at which the virtual clock begins."""
_SHARE_S = 5.0
"""The time until an idle GPU worker gets part of another's chunk: one heartbeat."""
_RESTART_S = 30.0
"""The time that a compute process needs to start again after an item has killed it."""
_NEVER = 1e-9
_DOOMED_S = 60.0
"""The lifetime of a GPU job that fails without doing any work."""


class WorkerPool:
    """All simulated GPU jobs and GPU workers, with the events that happen between two decisions."""

    def __init__(
        self, work: SimulatedWork, behaviours: Iterable[OfferBehaviour], rng: random.Random, deadline_s: float | None
    ) -> None:
        self.work = work
        self.now = 0.0
        self.jobs: dict[str, SimulatedJob] = {}
        self.ends: list[OrderEnd] = []
        self.idle: dict[SimulatedWorker, None] = {}
        self.busy: dict[SimulatedWorker, None] = {}
        self.evidence: dict[OfferKey, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
        """The measurements of each offer: items, working seconds, number of starts, seconds of starts."""
        self.seconds: dict[str, float] = dict.fromkeys(CLASSES, 0.0)
        self.usd: dict[str, float] = defaultdict(float)
        self.items: Counter[str] = Counter()
        self.orders: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.spent_usd = self.hedged_usd = 0.0
        self.first_item_s, self.last_item_s = math.inf, 0.0
        self.items_left = work.num_items
        self.behaviours = {behaviour.offer.key: behaviour for behaviour in behaviours}
        self._deadline_s = deadline_s
        self._rng = rng
        self.queue = [self._draw_chunk() for _ in range(work.num_chunks)]
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._seq = count()

    def _draw_chunk(self) -> SimulatedChunk:
        work, rng = self.work, self._rng
        is_poisoned = work.poison_share > 0 and rng.random() < work.poison_share
        extra_s = _RESTART_S * (2 + math.log2(work.items_per_chunk)) if is_poisoned else 0.0
        item_s = work.item_s * work.weight(rng) + work.chunk_overhead_s / work.items_per_chunk
        return SimulatedChunk(work.items_per_chunk, item_s, extra_s)

    def until(self, at: float) -> None:
        while self._events and self._events[0][0] <= at:
            self.now, _, act, arguments = heapq.heappop(self._events)
            act(*arguments)
        self.now = at

    def _at(self, at: float, act: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (at, next(self._seq), act, arguments))

    def order(self, action: StartJob) -> None:
        behaviour = self.behaviours[action.offer.key].at(self.now)
        expires_at = self.now + 3600 * action.hours
        if self._deadline_s is not None:
            expires_at = min(expires_at, self._deadline_s)
        platform = action.offer.platform
        self.orders[platform] += 1
        job = SimulatedJob(
            name=f"job-{sum(self.orders.values())}",
            behaviour=behaviour,
            at=self.now,
            expires_at=expires_at,
            reserved_usd=worst_case_usd(action.offer, action.num_workers, (expires_at - self.now) / 3600),
            num_workers=action.num_workers,
            last_item_s=self.now,
        )
        alive = sum(each.alive for each in self.jobs.values() if each.behaviour.offer.key == action.offer.key)
        if behaviour.is_down:
            self.refused[platform] += 1
            self._note_end(job, Failure.UNKNOWN, "it is down")
            return
        if behaviour.stock is not None and alive + action.num_workers > behaviour.stock:
            self.refused[platform] += 1
            self._note_end(job, behaviour.refusal, behaviour.refusal.value)
            return
        self.jobs[job.name] = job
        job.alive = action.num_workers
        is_doomed = self._rng.random() < behaviour.error_share
        for _ in range(action.num_workers):
            ready_s = self.now + behaviour.start_s(self._rng)
            worker = SimulatedWorker(job, ready_s, max(1e-6, behaviour.speed(self._rng)))
            job.workers.append(worker)
            if not is_doomed:
                self._at(ready_s, self._is_ready, worker)
            if behaviour.preemptions_per_hour > _NEVER:
                self._at(ready_s + self._rng.expovariate(behaviour.preemptions_per_hour / 3600), self._preempt, worker)
        if is_doomed:
            self._at(self.now + _DOOMED_S, self.end_job, job, Failure.UNKNOWN)
        self._at(expires_at, self._expire, job)

    def _expire(self, job: SimulatedJob) -> None:
        self.end_job(job, None)

    def end_job(self, job: SimulatedJob, failure: Failure | None, *, is_stopped: bool = False) -> None:
        if job.name not in self.jobs:
            return
        for worker in job.workers:
            if worker.is_alive:
                self._end_worker(worker, "preempted")
        if job.name in self.jobs:
            self._remove(job, failure, is_stopped=is_stopped)

    def _remove(self, job: SimulatedJob, failure: Failure | None, *, is_stopped: bool = False) -> None:
        del self.jobs[job.name]
        self._note_end(job, failure, "stopped" if is_stopped else str(failure or "succeeded"), is_stopped=is_stopped)

    def _note_end(self, job: SimulatedJob, failure: Failure | None, message: str, *, is_stopped: bool = False) -> None:
        self.ends.append(
            OrderEnd(
                offer=job.behaviour.offer,
                num_workers=job.num_workers,
                at=START + timedelta(seconds=self.now),
                items_done=job.items,
                failure=failure,
                is_stopped=is_stopped,
                message=message,
            )
        )

    def _is_ready(self, worker: SimulatedWorker) -> None:
        if not worker.is_alive:
            return
        found = self.evidence[worker.job.behaviour.offer.key]
        found[2] += 1
        found[3] += self.now - worker.job.at
        self._next_chunk(worker)

    def _next_chunk(self, worker: SimulatedWorker) -> None:
        if self.queue:
            self._take(worker, self.queue.pop())
        else:
            worker.idle_since = self.now
            self.idle[worker] = None

    def _take(self, worker: SimulatedWorker, chunk: SimulatedChunk) -> None:
        worker.chunk, worker.chunk_since, worker.idle_since = chunk, self.now, -1.0
        worker.version += 1
        self.idle.pop(worker, None)
        self.busy[worker] = None
        self._plan_end(worker)

    def _plan_end(self, worker: SimulatedWorker) -> None:
        assert worker.chunk is not None
        chunk = worker.chunk
        done_at = worker.chunk_since + chunk.extra_s + chunk.items * chunk.item_s / worker.speed
        self._at(done_at, self._finish, worker, worker.version)

    def _finish(self, worker: SimulatedWorker, version: int) -> None:
        if worker.version != version or not worker.is_alive or worker.chunk is None:
            return
        took_s = self.now - worker.chunk_since
        items, extra_s = worker.chunk.items + worker.chunk.items_before, worker.chunk.extra_s
        self.seconds["quarantined"] += extra_s
        worker.wasted_s += extra_s
        self._credit(worker, items, took_s)
        if worker.twin is not None:
            self._drop_twin(worker.twin)
        self._release_chunk(worker)
        self._next_chunk(worker)

    def _credit(self, worker: SimulatedWorker, items: int, took_s: float) -> None:
        job = worker.job
        worker.working_s += took_s
        job.items += items
        job.last_item_s = self.last_item_s = self.now
        self.items_left -= items
        self.items[job.behaviour.offer.platform] += items
        self.first_item_s = min(self.first_item_s, self.now)
        found = self.evidence[job.behaviour.offer.key]
        found[0] += items
        found[1] += took_s

    def _drop_twin(self, twin: SimulatedWorker) -> None:
        """End the attempt of the GPU worker that has lost a hedge."""
        lost_s = self.now - twin.chunk_since
        twin.working_s += lost_s
        twin.wasted_s += lost_s
        self.seconds["hedged"] += lost_s
        self.hedged_usd += usd_for(twin.job.behaviour.offer, lost_s)
        twin.twin = None
        self._release_chunk(twin)
        self._next_chunk(twin)

    def _release_chunk(self, worker: SimulatedWorker) -> None:
        worker.version += 1
        worker.chunk = worker.twin = None
        self.busy.pop(worker, None)

    def items_done(self, worker: SimulatedWorker) -> int:
        assert worker.chunk is not None
        at_work_s = self.now - worker.chunk_since - worker.chunk.extra_s
        return max(0, min(worker.chunk.items - 1, int(at_work_s * worker.speed / worker.chunk.item_s)))

    def written(self, worker: SimulatedWorker, part_s: float) -> tuple[int, float]:
        """Return the items of its chunk that are written in parts (one every `part_s`), and the work's seconds."""
        if worker.chunk is None:
            return 0, 0.0
        at_work_s = self.now - worker.chunk_since - worker.chunk.extra_s
        item_s = worker.chunk.item_s / worker.speed
        items = max(0, min(worker.chunk.items - 1, int(at_work_s // part_s * part_s / item_s)))
        return items, items * item_s

    def _preempt(self, worker: SimulatedWorker) -> None:
        if worker.is_alive and worker.job.name in self.jobs:
            self._end_worker(worker, "preempted", is_forced=True)

    def _end_worker(self, worker: SimulatedWorker, lost: str, *, is_forced: bool = False) -> None:
        """End a GPU worker: its finished items are kept, the current item is lost."""
        if worker.chunk is not None:
            done, took_s = self.items_done(worker), self.now - worker.chunk_since
            item_s = worker.chunk.item_s / worker.speed
            lost_s = max(0.0, took_s - done * item_s - worker.chunk.extra_s)
            chunk, twin = worker.chunk, worker.twin
            if twin is not None:
                twin.twin = None
                done, lost_s = 0, took_s
            else:
                self.queue.append(SimulatedChunk(chunk.items - done, chunk.item_s))
                done += chunk.items_before
            if done:
                self._credit(worker, done, took_s - lost_s)
            worker.working_s += lost_s
            worker.wasted_s += lost_s
            self.seconds[lost] += lost_s
            self._release_chunk(worker)
        self.idle.pop(worker, None)
        worker.is_alive = False
        job = worker.job
        job.alive -= 1
        self._bill(worker)
        if job.alive == 0 and job.name in self.jobs and (is_forced or lost == "idle"):
            job_failure = Failure.PREEMPTED if is_forced else None
            self._remove(job, job_failure)

    def _bill(self, worker: SimulatedWorker) -> None:
        job = worker.job
        offer = self.behaviours[job.behaviour.offer.key].at(self.now).offer
        start_s = min(worker.ready_s, self.now) - job.at
        starting_s = (
            start_s if offer.is_start_billed else 0.0
        )  # in simulations the first heartbeat comes with the first item
        billed = billed_s(offer, self.now - job.at - start_s + starting_s)
        usd = usd_for(offer, billed)
        self.seconds["starting"] += starting_s
        self.seconds["useful"] += worker.working_s - worker.wasted_s
        self.seconds["idle"] += billed - starting_s - worker.working_s
        self.spent_usd += usd
        self.usd[offer.platform] += usd
        job.reserved_usd *= job.alive / (job.alive + 1)

    def settle_idle(self) -> None:
        """Let idle GPU workers take open chunks, take over part of another's chunk, or exit."""
        for worker in list(self.idle):
            if self.queue:
                self._take(worker, self.queue.pop())
            elif self._share(worker):
                continue
            elif self.now - worker.idle_since >= max(5.0, worker.ready_s - worker.job.at):
                self._end_worker(worker, "idle")

    def _share(self, idle: SimulatedWorker) -> bool:
        """Give an idle GPU worker half of the items left to the GPU worker that would finish last."""
        holder = max(self.busy, key=self._remaining_s, default=None)
        if holder is None or holder.twin is not None or self._remaining_s(holder) < 2 * _SHARE_S:
            return False
        assert holder.chunk is not None
        done = self.items_done(holder)
        left = holder.chunk.items - done - 1
        if left < 1:
            return False
        given = (left + 1) // 2
        holder.chunk.items -= given
        holder.version += 1
        self._plan_end(holder)
        self._take(idle, SimulatedChunk(given, holder.chunk.item_s))
        return True

    def _remaining_s(self, worker: SimulatedWorker) -> float:
        assert worker.chunk is not None
        chunk = worker.chunk
        return worker.chunk_since + chunk.extra_s + chunk.items * chunk.item_s / worker.speed - self.now

    def hedge(self, chunk_id: str) -> None:
        name, _, slot = chunk_id.rpartition(".")
        job = self.jobs.get(name)
        holder = job.workers[int(slot)] if job else None
        idle = next(iter(self.idle), None)
        if holder is None or idle is None or holder.chunk is None or holder.twin is not None:
            return
        done = self.items_done(holder)
        self._take(idle, SimulatedChunk(holder.chunk.items - done, holder.chunk.item_s, items_before=done))
        holder.twin, idle.twin = idle, holder
