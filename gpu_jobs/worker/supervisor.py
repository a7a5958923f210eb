"""The supervisor: leases chunks, feeds the compute process, settles what comes back, and ends itself.

It never touches the device, so a busy or dead compute process cannot keep it from settling. Threads: this one reads
the compute process; one leases ahead; a few settle; one beats.
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
from gpu_jobs.worker.gpu import open_sampler
from gpu_jobs.worker.heartbeat import Pulse
from gpu_jobs.worker.holding import Hands, Settler, Work, clip
from gpu_jobs.worker.leaser import Leaser
from gpu_jobs.worker.leasing import LeaseFinder
from gpu_jobs.worker.life import Life, Status
from gpu_jobs.worker.messages import Assign, Cut, Done, Failed, Learned, Progress, Ready, Stop
from gpu_jobs.worker.process import ComputeProcess
from gpu_jobs.worker.wake import Wake

_TICK_S = 0.5
_SETTLE_S = 2.0
"""Of the platform's grace; the rest is for a long item to be left at a checkpoint."""
_PROBE = 0
"""Token of the item that proves this GPU worker sound."""


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
        self._hands = Hands()
        self._life = Life(worker_id, order, slot, self._hands, self._sampler, is_warm=is_warm)
        self._settler = Settler(ledger, worker_id, self._hands)
        self._pulse = Pulse(
            ledger, journal, policy, snapshot=self._life.heartbeat, end=self.end, wanted=self._note_wanted, order=order
        )
        self._survey = Survey(ledger, plan.chunk_boundaries)
        self._finder = LeaseFinder(ledger, self._survey, policy, worker_id, self._pulse.clock.now)
        self._leaser = Leaser(ledger, self._survey, self._finder, worker_id, hands=self._hands, wake=self._wake.ring)
        self._compute: ComputeProcess | None = None
        self._assigned: dict[int, Work] = {}
        self._last_token = _PROBE
        self._is_ready = self._is_long = False
        self._is_careful = False
        """Since the first death: one chunk at a time, so that a death has one suspect."""
        self._is_probing = self._is_probed = False
        self._failure: Failure | None = None
        self._fruitless = 0
        self._achieved_at_death = 0
        self._parts_due_at = 0.0
        self._heard_at = time.monotonic()
        self._wanted: set[str] = set()
        self._ending = ""

    @property
    def ending(self) -> str:
        """Why it ends; "" while it does not."""
        return self._ending

    def end(self, reason: str) -> None:
        """Salvage and exit soon; safe from any thread and from a signal handler."""
        self._ending = self._ending or reason
        self._wake.ring()

    def run(self) -> int:
        """Work until nothing is left, or told to end; return the process's exit code."""
        self._pulse.start()
        self._pulse.check_journal()
        try:
            if not self._ending:
                self._start_compute()
            self._loop()
        finally:
            self._close()
        self._life.over(self._ending, self._failure)
        self._pulse.beat()
        self._life.keep_what_was_learned(self._ledger.store.uri)
        return int(self._failure is not None)

    def _loop(self) -> None:
        while not self._ending:
            self._life.tick(self._status())
            wait([*self._waitables(), self._wake.waitable], timeout=_TICK_S)
            self._wake.drain()
            self._hear()
            if self._is_ready and not self._is_probing:
                self._give()
                self._assign()
            self._write_due_parts()
            if self._settler.error:
                self._ending, self._failure = f"the store cannot be written: {self._settler.error}", Failure.UNKNOWN
            elif self._leaser.over and not self._hands.works():
                self._ending, self._failure = self._leaser.over, self._leaser.failure

    def _close(self) -> None:
        """Kill the compute process; commit what is finished and leave the rest open."""
        self._leaser.stop()
        if self._is_long:
            self._wait_for_checkpoint()
        if self._compute is not None and self._is_ready:
            self._hear_messages(self._compute)
        if self._compute is not None:
            self._compute.kill()
        works = self._hands.works()
        self._life.lose(LostSeconds(preempted=self._life.worked() if works else 0.0))
        for work in works:
            self._settler.settle(work)
        self._settler.close()
        self._pulse.stop()

    def _wait_for_checkpoint(self) -> None:
        """Let the compute process leave its item at a checkpoint."""
        give_up_at = time.monotonic() + self._grace_s - _SETTLE_S
        if self._compute is not None:
            self._compute.send(Stop())
        while self._assigned and self._compute and not self._compute.is_dead() and time.monotonic() < give_up_at:
            wait(self._waitables(), timeout=_TICK_S)
            self._life.tick(self._status())
            self._hear_messages(self._compute)

    def _status(self) -> Status:
        if not self._is_ready:
            return "starting"
        return "working" if self._assigned else "idle"

    def _start_compute(self) -> None:
        self._is_ready = False
        self._heard_at = time.monotonic()
        learned = HeartbeatReader(self._ledger).learned_batch_sizes()
        self._compute = ComputeProcess(self._ledger.store.uri, self._plan, self._sampler.device, learned)

    def _waitables(self) -> list[Connection | int]:
        return [] if self._compute is None else list(self._compute.waitables)

    def _hear(self) -> None:
        compute = self._compute
        if compute is None:
            return
        is_dead = compute.is_dead()  # asked first, so that its last words are heard before it is buried
        if self._hear_messages(compute):
            return
        silent_s = time.monotonic() - self._heard_at
        if is_dead:
            self._bury(Cause.CRASHED, compute.obituary())
        elif silent_s > self._policy.stall_s and (self._assigned or not self._is_ready):
            self._bury(Cause.STALLED, f"no sign of life for {duration(silent_s)}")

    def _hear_messages(self, compute: ComputeProcess) -> bool:
        """Take in everything said; True if the process said that it gives up."""
        for message in compute.messages():
            self._heard_at = time.monotonic()
            match message:
                case Ready():
                    self._on_ready(message)
                case Learned():
                    self._life.learned(message)
                case Failed(cause, detail):
                    self._bury(cause, detail)
                    return True
                case Progress():
                    self._on_progress(message)
                case Done() if message.token == _PROBE:
                    self._is_probing, self._is_probed = False, message.num_failed == 0
                case Done():
                    self._on_done(message)
        return False

    def _on_ready(self, ready: Ready) -> None:
        self._is_ready, self._is_long = True, ready.is_long
        self._life.is_long = ready.is_long
        self._life.model_loaded(ready.seconds, ready.device)
        if self._is_long:
            self._leaser.most_ahead = 1
        self._leaser.linger_s = max(self._leaser.linger_s, self._life.cold_start_s)
        self._leaser.start_once()
        if self._is_careful and not (self._is_vouched or self._is_long) and self._compute is not None:
            proven = self._survey.find_committed()
            if proven is not None:
                self._is_probing = True
                self._compute.send(Assign(_PROBE, Chunk(proven, proven + 1)))

    @property
    def _is_vouched(self) -> bool:
        """It has finished other work, so that host and image are sound."""
        return self._life.achievements > 0 or self._is_probed

    def _on_progress(self, progress: Progress) -> None:
        self._life.progressed(progress.doing)
        work = self._assigned.get(progress.token)
        if work is not None and progress.checkpoint:
            work.advanced = True
            work.worked_s += self._life.worked()  # kept: what follows is lost if it dies now
            self._life.checkpoints += 1

    def _on_done(self, done: Done) -> None:
        worked_s = self._life.worked()
        work = self._assigned.get(done.token)
        if work is None:
            self._life.lose(LostSeconds(hedged=worked_s))
            return  # cut off, or given back
        work.worked_s += worked_s
        work.unsaved_s += worked_s
        done = clip(done, work.chunk)
        self._life.did(done)
        work.add(done)
        if work.items_left == 0:
            self._forget(work)
            self._settler.settle(work)

    def _forget(self, work: Work) -> None:
        """The compute process is through with a work, or will never be."""
        for token in self._tokens(work):
            del self._assigned[token]
        self._hands.computed()
        self._leaser.has_room(self._life.lap())

    def _tokens(self, work: Work) -> list[int]:
        return [token for token, each in self._assigned.items() if each is work]

    def _bury(self, cause: Cause, detail: str) -> None:
        """The compute process is gone: keep what it finished, tell the ledger, start another."""
        compute, self._compute = self._compute, None
        if compute is not None:
            compute.kill()
        if cause in UNFIT:
            self._ending, self._failure = f"{cause}: {detail}", UNFIT[cause]
            return
        works = list(dict.fromkeys(self._assigned.values()))
        is_fruitful = self._life.achievements > self._achieved_at_death
        convicting = cause.is_suspicious and self._is_vouched and len(works) == 1
        for work in works:
            is_suspect = work is works[0]
            self._forget(work)
            told = (cause, detail) if is_suspect else (Cause.STOPPED, f"beside another chunk: {detail}")
            self._settler.end(work, *told, vouched=convicting)
        self._life.lose(lost_by(cause, self._life.worked(), blames_items=convicting))
        self._fruitless = 0 if is_fruitful or convicting else self._fruitless + 1
        self._achieved_at_death = self._life.achievements
        self._is_careful, self._is_probing = True, False
        if self._fruitless >= MAX_FRUITLESS_FAILURES:
            self._ending = f"failed {self._fruitless} times without a commit; the last: {detail}"
            self._failure = Failure.USER_CODE if cause.is_suspicious else Failure.UNKNOWN
        elif not self._ending:
            self._start_compute()

    def _assign(self) -> None:
        while self._leaser.ready and self._compute and not (self._is_careful and self._assigned):
            work = self._leaser.ready.popleft()
            for piece in work.leased.left:
                self._last_token += 1
                self._assigned[self._last_token] = work
                self._compute.send(Assign(self._last_token, piece))

    def _note_wanted(self, chunk_ids: set[str]) -> None:
        self._wanted = chunk_ids
        self._wake.ring()

    def _give(self) -> None:
        """Give what others have asked for: a chunk not begun as it is, else the second half of what is left."""
        asked = [work for work in self._hands.works() if work.chunk.id in self._wanted] if self._wanted else []
        for work in asked:
            if not work.has_begun and self._hands.num_uncomputed > 1:
                self._release(work)
            elif work.items_left > 1 and len(self._tokens(work)) == 1:
                self._cut(work)
        self._wanted = set()

    def _release(self, work: Work) -> None:
        if work in self._leaser.ready:
            self._leaser.ready.remove(work)
        for token in self._tokens(work):
            self._tell(Cut(token, 0))
        self._forget(work)
        self._finder.give(work.chunk)
        self._settler.end(work, Cause.RELEASED, "given to a GPU worker that asked")

    def _cut(self, work: Work) -> None:
        (token,) = self._tokens(work)
        kept = self._settler.cut(work)
        self._hands.computed()
        if kept is None:
            del self._assigned[token]
            self._tell(Cut(token, 0))
        else:
            self._assigned[token] = kept
            self._tell(Cut(token, kept.chunk.stop))
            self._finder.give(Chunk(kept.chunk.stop, work.leased.left[0].stop))

    def _tell(self, message: Cut) -> None:
        if self._compute is not None:
            self._compute.send(message)

    def _write_due_parts(self) -> None:
        now = time.monotonic()
        if now < self._parts_due_at:
            return
        self._parts_due_at = now + 1.0
        for work in set(self._assigned.values()):
            if work.buffer and now - work.buffered_at > self._policy.part_s:
                work.buffered_at = now
                self._settler.write_part(work)
