"""A GPU worker in the hands of a test: real leasing, parts and settlements around scripted computing."""

from collections.abc import Callable, Collection, Iterator
from typing import Literal

from gpu_jobs.jobs.failures import Cause, Failure
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger.ledger import Ledger, OpenChunk
from gpu_jobs.ledger.open_chunks import Survey
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Heartbeat, Plan
from gpu_jobs.store.base import Store
from gpu_jobs.testing.factories import noop_rows
from gpu_jobs.worker.holding import Hands, Settler, Work
from gpu_jobs.worker.leasing import Leased, LeaseFinder, StoreClock
from gpu_jobs.worker.messages import Done


class FakeGpuWorker:
    """One GPU worker of a campaign made by `plan_campaign`, without processes, threads or waiting.

    Every method is one step and leaves the rest to whoever comes next. A test that calls none for a while has frozen
    it; one that forgets it has killed it.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        policy: Policy,
        *,
        worker_id: str,
        monotonic: Callable[[], float],
        order: str = "",
        poison: Collection[int] = (),
    ) -> None:
        """`monotonic`: its machine's own seconds, from any origin. `poison`: items that kill the compute process."""
        self.worker_id = worker_id
        self.ledger = Ledger(store)
        self.survey = Survey(self.ledger, plan.chunk_boundaries)
        self.hands = Hands()
        self.settler = Settler(self.ledger, worker_id, self.hands, num_threads=0)
        self.clock = StoreClock(monotonic)
        self.finder = LeaseFinder(self.ledger, self.survey, policy, worker_id, self.clock.now)
        self.items_done = 0
        self._order = order
        self._poison = frozenset(poison)
        self._sweep: Iterator[Leased] = iter(())
        self._is_careful = self._is_proven = False
        self.beat()

    def beat(
        self, status: Literal["working", "over"] = "working", reason: str = "", failure: Failure | None = None
    ) -> None:
        """Tell the store that it lives and what it holds."""
        heartbeat = Heartbeat(
            worker_id=self.worker_id,
            order=self._order,
            slot=0,
            host="test",
            status=status,
            reason=reason,
            failure=failure,
            leases=tuple(work.chunk.id for work in self.hands.works()),
            items_done=self.items_done,
        )
        self.clock.set(self.ledger.beat(heartbeat))

    def lease(self) -> Work | None:
        """Go on with the sweep under way, or begin one; None if there is nothing to lease now."""
        leased = next(self._sweep, None)
        if leased is None:
            self._sweep = self.finder.sweep()
            leased = next(self._sweep, None)
        if leased is None:
            return None
        work = Work.of(leased)
        self.hands.take(work)
        return work

    def uncomputed(self) -> list[Work]:
        """Works at the compute process: after its first death one at a time, so that a death has one suspect."""
        works = [work for work in self.hands.works() if work.items_left]
        return works[:1] if self._is_careful else works

    def compute(self, work: Work, num_items: int = 1) -> bool:
        """Finish the next micro-batch of a work; False if a poison item in it was the end of the compute process."""
        batch = _next_items(work, num_items)
        if not self._poison.isdisjoint(range(*batch)):
            self.crash(f"died in [{batch.start}, {batch.stop})")
            return False
        work.add(Done(1, batch, noop_rows(batch), 0, 0.0))
        self.items_done += batch.num_items
        if work.items_left == 0:
            self.hands.computed()
        return True

    @property
    def is_vouched(self) -> bool:
        """It has finished other work, so that host and image are sound."""
        return self.items_done > 0 or self._is_proven

    def crash(self, detail: str = "died", cause: Cause = Cause.CRASHED) -> None:
        """The compute process dies and starts again; whatever it was at has ended."""
        works = self.uncomputed()
        is_convicting = self.is_vouched and len(works) == 1
        for work in works:
            self.hands.computed()
            told = (cause, detail) if work is works[0] else (Cause.STOPPED, f"beside another chunk: {detail}")
            self.settler.end(work, *told, vouched=is_convicting)
        self._is_careful = True
        self._is_proven = self.survey.find_committed() is not None

    def give(self) -> None:
        """Give what others want: a chunk not begun as it is, else half of what is left."""
        wanted = self.ledger.wanted()
        for work in self.uncomputed():
            if work.chunk.id not in wanted:
                continue
            if not work.has_begun and self.hands.num_uncomputed > 1:
                self.hands.computed()
                self.finder.give(work.chunk)
                self.settler.end(work, Cause.RELEASED, "given to a GPU worker that asked")
            elif work.items_left > 1 and len(work.leased.left) == 1:
                kept = self.settler.cut(work)
                self.hands.computed()
                if kept is not None:
                    self.finder.give(Chunk(kept.chunk.stop, work.leased.left[0].stop))

    def ask(self) -> None:
        """With nothing to lease: ask whoever has most."""
        chunk_id = self.finder.busiest()
        if chunk_id is not None:
            self.ledger.want(Chunk.parse(chunk_id), self.worker_id)

    def salvage(self) -> None:
        """SIGTERM: commit what is finished, leave the rest open, and be over."""
        for work in self.hands.works():
            self.settler.settle(work)
        self.beat("over", "stopped by SIGTERM")

    def work_on(self) -> None:
        """Lease, compute and settle, one item at a time, until a look around shows nothing new to lease."""
        seen: list[list[OpenChunk]] = []
        while True:
            work = self.lease()
            if work is not None:
                self.work_through(work)
                continue
            self.survey.refresh_all()
            left = [list(window.open) for window in self.survey.windows]
            if left == seen:
                return
            seen = left

    def work_through(self, work: Work) -> None:
        """Compute and settle one chunk; a poison item in it ends the attempt."""
        self.beat()
        while work.items_left and self.compute(work):
            continue
        if not work.items_left:
            self.settler.settle(work)
        self.beat()


def _next_items(work: Work, num_items: int) -> Chunk:
    """The next items of a work that are not finished, within one piece of it."""
    left = sum(piece.num_items for piece in work.leased.left) - work.items_left
    for piece in work.leased.left:
        if left < piece.num_items:
            start = piece.start + left
            return Chunk(start, min(start + num_items, piece.stop))
        left -= piece.num_items
    raise ValueError(f"{work.chunk} is finished")
