"""The supervisor of a GPU worker: it leases chunks, feeds the compute process, settles the results, and ends itself.

It never uses the device, so it can settle even when the compute process is busy or dead. Its threads: the main thread
reads the messages of the compute process, one leases ahead, a few settle, and one writes heartbeats.
"""

import time
from multiprocessing.connection import Connection, wait

from gpu_jobs.durations import duration
from gpu_jobs.jobs.costs import LostSeconds, lost_by
from gpu_jobs.jobs.failures import MAX_FRUITLESS_FAILURES, UNFIT, Cause, Failure
from gpu_jobs.jobs.offers import GRACE_S
from gpu_jobs.jobs.orders import Order, Policy
from gpu_jobs.ledger.heartbeats import HeartbeatReader
from gpu_jobs.ledger.journal import Journal
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.open_chunks import Survey
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Plan
from gpu_jobs.worker.assignments import PROBE, Assignments
from gpu_jobs.worker.gpu import open_sampler
from gpu_jobs.worker.heartbeat import HeartbeatThread
from gpu_jobs.worker.in_flight import InFlightChunks, Settler, clip
from gpu_jobs.worker.leaser import Leaser
from gpu_jobs.worker.leasing import LeaseFinder
from gpu_jobs.worker.messages import Assign, Cut, Done, Failed, ItemProgress, Learned, Ready, Stop
from gpu_jobs.worker.process import ComputeProcess
from gpu_jobs.worker.record import Status, WorkerRecord
from gpu_jobs.worker.wake import Wake

_TICK_S = 0.5
_SETTLE_S = 2.0
"""Seconds of the platform's grace that are kept for settling; a long item may use the others to reach a checkpoint."""


class Supervisor:
    """One GPU worker, from its first heartbeat to its last."""

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        plan: Plan,
        policy: Policy,
        *,
        worker_id: str,
        order: Order | None,
        slot: int,
        is_warm: bool = False,
    ) -> None:
        self._ledger = ledger
        self._plan = plan
        self._policy = policy
        self._worker_id = worker_id
        self._grace_s = order.offer.grace_s if order else GRACE_S
        self._sampler = open_sampler()
        self._wake = Wake()
        self._in_flight = InFlightChunks()
        self._record = WorkerRecord(worker_id, order, slot, self._in_flight, self._sampler, is_warm=is_warm)
        self._settler = Settler(ledger, worker_id, self._in_flight)
        self._heartbeats = HeartbeatThread(
            ledger,
            journal,
            policy,
            snapshot=self._record.heartbeat,
            end=self.end,
            note_wanted=self._note_wanted,
            order=order,
        )
        self._survey = Survey(ledger, plan.chunk_boundaries)
        finder = LeaseFinder(ledger, self._survey, policy, worker_id, self._heartbeats.clock.now)
        self._leaser = Leaser(ledger, self._survey, finder, worker_id, in_flight=self._in_flight, wake=self._wake.ring)
        self._assignments = Assignments(
            self._in_flight, self._leaser, finder, self._settler, send=self._send, lap=self._record.take_lap_s
        )
        self._compute: ComputeProcess | None = None
        self._is_ready = self._is_long = False
        self._is_careful = False
        """After the first death of a compute process: assign one chunk at a time, so that a death has one suspect."""
        self._is_probing = self._is_probed = False
        self._failure: Failure | None = None
        self._fruitless = 0
        self._achieved_at_death = 0
        self._parts_due_at = 0.0
        self._heard_at = time.monotonic()
        self._ending = ""

    @property
    def ending(self) -> str:
        """Why this GPU worker ends; "" while it goes on."""
        return self._ending

    def end(self, reason: str) -> None:
        """Ask the GPU worker to salvage and exit soon. Any thread and any signal handler may call this."""
        self._ending = self._ending or reason
        self._wake.ring()

    def run(self) -> int:
        """Work until nothing is left or `end` is called; return the exit code of the process."""
        self._heartbeats.start()
        self._heartbeats.check_journal()
        try:
            if not self._ending:
                self._start_compute()
            self._loop()
        finally:
            self._close()
        self._record.end(self._ending, self._failure)
        self._heartbeats.beat()
        self._record.keep_learned(self._ledger.store.uri)
        return int(self._failure is not None)

    def _loop(self) -> None:
        while not self._ending:
            self._record.tick(self._status())
            wait([*self._waitables(), self._wake.waitable], timeout=_TICK_S)
            self._wake.drain()
            self._check_compute()
            if self._is_ready and not self._is_probing:
                self._assignments.give_wanted()
                if self._compute is not None:
                    self._assignments.assign_ready(one_at_a_time=self._is_careful)
            self._write_due_parts()
            if self._settler.error:
                self._ending, self._failure = f"cannot write to the store: {self._settler.error}", Failure.UNKNOWN
            elif self._leaser.over and not self._in_flight.chunks():
                self._ending, self._failure = self._leaser.over, self._leaser.failure

    def _close(self) -> None:
        """Kill the compute process, commit what is finished, and leave the rest open for others."""
        self._leaser.stop()
        if self._is_long:
            self._wait_for_checkpoint()
        if self._compute is not None and self._is_ready:
            self._read_messages(self._compute)
        if self._compute is not None:
            self._compute.kill()
        chunks = self._in_flight.chunks()
        self._record.add_lost(LostSeconds(preempted=self._record.take_worked_s() if chunks else 0.0))
        for held in chunks:
            self._settler.settle(held)
        self._settler.close()
        self._heartbeats.stop()

    def _wait_for_checkpoint(self) -> None:
        """Ask the compute process to leave its item at a checkpoint, and wait for that within the grace."""
        give_up_at = time.monotonic() + self._grace_s - _SETTLE_S
        self._send(Stop())
        while self._assignments and self._compute and not self._compute.is_dead() and time.monotonic() < give_up_at:
            wait(self._waitables(), timeout=_TICK_S)
            self._record.tick(self._status())
            self._read_messages(self._compute)

    def _status(self) -> Status:
        if not self._is_ready:
            return "starting"
        return "working" if self._assignments else "idle"

    def _start_compute(self) -> None:
        self._is_ready = False
        self._heard_at = time.monotonic()
        learned = HeartbeatReader(self._ledger).learned_batch_sizes()
        self._compute = ComputeProcess(self._ledger.store.uri, self._plan, self._sampler.device, learned)

    def _waitables(self) -> list[Connection | int]:
        return [] if self._compute is None else list(self._compute.waitables)

    def _send(self, message: Assign | Cut | Stop) -> None:
        if self._compute is not None:
            self._compute.send(message)

    def _check_compute(self) -> None:
        compute = self._compute
        if compute is None:
            return
        is_dead = compute.is_dead()  # asked before its messages are read, so that its last messages count
        if self._read_messages(compute):
            return
        silent_s = time.monotonic() - self._heard_at
        if is_dead:
            self._handle_exit(Cause.CRASHED, compute.exit_report())
        elif silent_s > self._policy.stall_s and (self._assignments or not self._is_ready):
            self._handle_exit(Cause.STALLED, f"the compute process sent no message for {duration(silent_s)}")

    def _read_messages(self, compute: ComputeProcess) -> bool:
        """Handle all messages that have arrived; return True if the compute process reported that it gives up."""
        for message in compute.messages():
            self._heard_at = time.monotonic()
            match message:
                case Ready():
                    self._on_ready(message)
                case Learned():
                    self._record.note_learned(message)
                case Failed(cause, detail):
                    self._handle_exit(cause, detail)
                    return True
                case ItemProgress():
                    self._on_progress(message)
                case Done() if message.token == PROBE:
                    self._is_probing, self._is_probed = False, message.num_failed == 0
                case Done():
                    self._on_done(message)
        return False

    def _on_ready(self, ready: Ready) -> None:
        self._is_ready, self._is_long = True, ready.is_long
        self._record.is_long = ready.is_long
        self._record.note_model_loaded(ready.seconds, ready.device)
        if self._is_long:
            self._leaser.most_ahead = 1
        self._leaser.linger_s = max(self._leaser.linger_s, self._record.cold_start_s)
        self._leaser.start_once()
        if self._is_careful and not (self._is_trusted or self._is_long):
            committed = self._survey.find_committed()
            if committed is not None:
                self._is_probing = True
                self._send(Assign(PROBE, Chunk(committed, committed + 1)))

    @property
    def _is_trusted(self) -> bool:
        """Whether this GPU worker has finished other work, which shows that its host and image are sound."""
        return self._record.achievements > 0 or self._is_probed

    def _on_progress(self, progress: ItemProgress) -> None:
        self._record.note_progress(progress.doing)
        held = self._assignments.get(progress.token)
        if held is not None and progress.checkpoint:
            held.advanced = True
            held.worked_s += self._record.take_worked_s()  # saved: only what follows is lost if it dies now
            self._record.checkpoints += 1

    def _on_done(self, done: Done) -> None:
        worked_s = self._record.take_worked_s()
        held = self._assignments.get(done.token)
        if held is None:  # the chunk was given away
            self._record.add_lost(LostSeconds(hedged=worked_s))
            return
        held.worked_s += worked_s
        held.unsaved_s += worked_s
        done = clip(done, held.chunk)
        self._record.count(done)
        held.add(done)
        if held.items_left == 0:
            self._assignments.forget(held)
            self._settler.settle(held)

    def _handle_exit(self, cause: Cause, detail: str) -> None:
        """The compute process is gone: keep what it finished, end its attempts in the ledger, and start another."""
        compute, self._compute = self._compute, None
        if compute is not None:
            compute.kill()
        if cause in UNFIT:
            self._ending, self._failure = f"{cause}: {detail}", UNFIT[cause]
            return
        is_fruitful = self._record.achievements > self._achieved_at_death
        blames_items = cause.is_suspicious and self._is_trusted and len(self._assignments.chunks()) == 1
        self._end_attempts(cause, detail, blames_items=blames_items)
        self._record.add_lost(lost_by(cause, self._record.take_worked_s(), blames_items=blames_items))
        self._fruitless = 0 if is_fruitful or blames_items else self._fruitless + 1
        self._achieved_at_death = self._record.achievements
        self._is_careful, self._is_probing = True, False
        if self._fruitless >= MAX_FRUITLESS_FAILURES:
            self._ending = f"failed {self._fruitless} times without a commit; the last failure: {detail}"
            self._failure = Failure.USER_CODE if cause.is_suspicious else Failure.UNKNOWN
        elif not self._ending:
            self._start_compute()

    def _end_attempts(self, cause: Cause, detail: str, *, blames_items: bool) -> None:
        """End the attempts of all assigned chunks; only the oldest one is the suspect."""
        for number, held in enumerate(self._assignments.chunks()):
            self._assignments.forget(held)
            if number == 0:
                self._settler.end(held, cause, detail, trusted=blames_items)
            else:
                reason = f"stopped together with another chunk: {detail}"
                self._settler.end(held, Cause.STOPPED, reason, trusted=blames_items)

    def _note_wanted(self, chunk_ids: set[str]) -> None:
        self._assignments.wanted = chunk_ids
        self._wake.ring()

    def _write_due_parts(self) -> None:
        now = time.monotonic()
        if now < self._parts_due_at:
            return
        self._parts_due_at = now + 1.0
        for held in self._assignments.chunks():
            if held.buffer and now - held.buffered_at > self._policy.part_s:
                held.buffered_at = now
                self._settler.write_part(held)
