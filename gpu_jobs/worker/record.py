"""The record of a GPU worker: the items and seconds that it counts for its heartbeat."""

import os
import socket
import time
from dataclasses import asdict
from typing import Literal

from gpu_jobs.jobs.costs import LIFE_PHASES, LostSeconds, WorkerSeconds
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.orders import Order
from gpu_jobs.ledger.records import Heartbeat
from gpu_jobs.telemetry.batch_sizes import keep
from gpu_jobs.telemetry.latencies import added, step_of
from gpu_jobs.worker.gpu import Sampler
from gpu_jobs.worker.heartbeat import Rate
from gpu_jobs.worker.in_flight import InFlightChunks
from gpu_jobs.worker.messages import Done, Learned

Status = Literal["starting", "working", "idle", "over"]
_STUCK_S = 60.0


class WorkerRecord:
    """Counts a GPU worker's items and seconds. The supervisor's thread writes; the heartbeat thread reads."""

    def __init__(
        self,
        worker_id: str,
        order: Order | None,
        slot: int,
        in_flight: InFlightChunks,
        sampler: Sampler,
        *,
        is_warm: bool = False,
    ) -> None:
        self._worker_id = worker_id
        self._order = order.name if order else ""
        self._slot = slot
        self._host = f"{socket.gethostname()}:{os.getpid()}"
        self._in_flight = in_flight
        self._sampler = sampler
        self._is_warm = is_warm
        self._rate = Rate()
        self._seconds = dict.fromkeys(LIFE_PHASES, 0.0)
        self._status: Status = "starting"
        self._reason = ""
        self._failure: Failure | None = None
        self._ticked_at = self._lap_at = time.monotonic()
        self._device = ""
        self._facts: dict[str, str] = {}
        self._batch_size = 0
        self._worked_s = 0.0
        self._lost = LostSeconds()
        self._latencies: dict[int, int] = {}
        self.items_done = 0
        self.items_failed = 0
        self.infer_s = 0.0
        self.is_long = False
        """Whether the workload's items are long; see `LongWorkload`."""
        self.doing = ""
        """The latest progress report of the long item at work; for people."""
        self.progress_marks = 0
        """Number of progress reports of long items so far."""
        self.checkpoints = 0
        """Number of checkpoints written so far."""

    @property
    def cold_start_s(self) -> float:
        """Seconds spent on starting and loading the model."""
        return self._seconds["starting"] + self._seconds["model_load"]

    def tick(self, status: Status) -> None:
        """Count the time since the last tick under the old status, and set the new status."""
        now = time.monotonic()
        if self._status != "over":
            self._seconds[self._status] += now - self._ticked_at
        self._ticked_at, self._status = now, status

    def note_model_loaded(self, seconds: float, device: str) -> None:
        """Count `seconds` as `model_load` instead of `starting`."""
        self.tick("idle")
        self._seconds["starting"] -= seconds
        self._seconds["model_load"] += seconds
        self._worked_s = self._seconds["working"]
        self._device = device

    def count(self, done: Done) -> None:
        """Count finished items."""
        self.items_done += done.range.num_items
        self.items_failed += done.num_failed
        self.infer_s += done.busy_s
        self._latencies = added([self._latencies, {step_of(done.latency_s): done.range.num_items}])
        self.doing = ""

    @property
    def achievements(self) -> int:
        """A number that grows with all work that will not have to be repeated."""
        return self.items_done + self.checkpoints

    def note_learned(self, learned: Learned) -> None:
        self._facts, self._batch_size = learned.facts, learned.batch_size

    def take_worked_s(self) -> float:
        """Return the working seconds since the last call."""
        self.tick(self._status)
        before, self._worked_s = self._worked_s, self._seconds["working"]
        return self._worked_s - before

    def add_lost(self, lost: LostSeconds) -> None:
        """Count working seconds that were wasted."""
        self._lost += lost

    def keep_learned(self, campaign_uri: str) -> None:
        """Keep the batch size that was found for the next campaign."""
        if self._batch_size and "device" in self._facts:
            keep(campaign_uri, self._facts, self._batch_size)

    def take_lap_s(self) -> float:
        """Return the seconds since the last call."""
        now = time.monotonic()
        lap_s, self._lap_at = now - self._lap_at, now
        return lap_s

    def end(self, reason: str, failure: Failure | None = None) -> None:
        """Set the status `over`, which the last heartbeat carries."""
        self.tick("over")
        self._reason, self._failure = reason, failure

    def note_progress(self, doing: str) -> None:
        """A long item has reported its progress."""
        self.doing = doing
        self.progress_marks += 1

    def heartbeat(self) -> Heartbeat | None:
        """Return None if the supervisor has not ticked for a minute: a stuck supervisor must not look alive."""
        if self._status != "over" and time.monotonic() - self._ticked_at > _STUCK_S:
            return None
        gpu = self._sampler.read()
        return Heartbeat(
            worker_id=self._worker_id,
            order=self._order,
            slot=self._slot,
            host=self._host,
            status=self._status,
            reason=self._reason,
            failure=self._failure,
            leases=tuple(held.chunk.id for held in self._in_flight.chunks()),
            items_done=self.items_done,
            items_failed=self.items_failed,
            items_per_s=round(self._rate.read(self.items_done), 3),
            seconds=self._all_seconds(),
            gpu_use=gpu.use,
            gpu_note=gpu.note,
            facts=self._facts,
            batch_size=self._batch_size,
            is_at_long_item=self.is_long and self._status == "working",
            progress_marks=self.progress_marks,
            doing=self.doing if self._status == "working" else "",
            checkpoints=self.checkpoints,
            is_warm=self._is_warm,
            latencies=self._latencies,
        )

    def _all_seconds(self) -> WorkerSeconds:
        lost = self._lost + LostSeconds(hedged=self._in_flight.hedged_s)
        parts = {**asdict(lost), "infer": self.infer_s, "unsettled": self._in_flight.unsaved_s}
        return WorkerSeconds(**{name: round(value, 3) for name, value in {**self._seconds, **parts}.items()})
