"""What a GPU worker knows of its own life, for its heartbeat."""

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
from gpu_jobs.worker.holding import Hands
from gpu_jobs.worker.messages import Done, Learned

Status = Literal["starting", "working", "idle", "over"]
_STUCK_S = 60.0


class Life:
    """Counts items and seconds. The supervisor's thread writes; `heartbeat` reads from another."""

    def __init__(
        self, worker_id: str, order: Order | None, slot: int, hands: Hands, sampler: Sampler, *, is_warm: bool = False
    ) -> None:
        self._worker_id = worker_id
        self._order = order.name if order else ""
        self._slot = slot
        self._host = f"{socket.gethostname()}:{os.getpid()}"
        self._hands = hands
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
        """Its items are; see `LongWorkload`."""
        self.doing = ""
        self.progress_marks = 0
        self.checkpoints = 0

    @property
    def cold_start_s(self) -> float:
        return self._seconds["starting"] + self._seconds["model_load"]

    def tick(self, status: Status) -> None:
        """Book the time since the last tick under the status that held."""
        now = time.monotonic()
        if self._status != "over":
            self._seconds[self._status] += now - self._ticked_at
        self._ticked_at, self._status = now, status

    def model_loaded(self, seconds: float, device: str) -> None:
        self.tick("idle")
        self._seconds["starting"] -= seconds
        self._seconds["model_load"] += seconds
        self._worked_s = self._seconds["working"]
        self._device = device

    def did(self, done: Done) -> None:
        self.items_done += done.range.num_items
        self.items_failed += done.num_failed
        self.infer_s += done.busy_s
        self._latencies = added([self._latencies, {step_of(done.latency_s): done.range.num_items}])
        self.doing = ""

    @property
    def achievements(self) -> int:
        """Grows with everything that will not have to be done again."""
        return self.items_done + self.checkpoints

    def learned(self, learned: Learned) -> None:
        self._facts, self._batch_size = learned.facts, learned.batch_size

    def worked(self) -> float:
        """Working seconds since the last call."""
        self.tick(self._status)
        before, self._worked_s = self._worked_s, self._seconds["working"]
        return self._worked_s - before

    def lose(self, lost: LostSeconds) -> None:
        """So many working seconds came to nothing."""
        self._lost += lost

    def keep_what_was_learned(self, campaign_uri: str) -> None:
        """For the next campaign."""
        if self._batch_size and "device" in self._facts:
            keep(campaign_uri, self._facts, self._batch_size)

    def lap(self) -> float:
        """Seconds since the last call."""
        now = time.monotonic()
        lap_s, self._lap_at = now - self._lap_at, now
        return lap_s

    def over(self, reason: str, failure: Failure | None = None) -> None:
        self.tick("over")
        self._reason, self._failure = reason, failure

    def progressed(self, doing: str) -> None:
        """A long item has reported how far it is."""
        self.doing = doing
        self.progress_marks += 1

    def heartbeat(self) -> Heartbeat | None:
        """None if the supervisor has not ticked for long: a stuck supervisor must not look alive."""
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
            leases=tuple(work.chunk.id for work in self._hands.works()),
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
        lost = self._lost + LostSeconds(hedged=self._hands.hedged_s)
        parts = {**asdict(lost), "infer": self.infer_s, "unsettled": self._hands.unsaved_s}
        return WorkerSeconds(**{name: round(value, 3) for name, value in {**self._seconds, **parts}.items()})
