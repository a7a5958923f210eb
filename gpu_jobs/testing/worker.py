"""A GPU worker that a test drives step by step: leasing, parts and settlements are real, computing is scripted."""

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
from gpu_jobs.worker.in_flight import InFlightChunk, InFlightChunks, Settler
from gpu_jobs.worker.leasing import Leased, LeaseFinder, StoreClock
from gpu_jobs.worker.messages import Done


class FakeGpuWorker:
    """One GPU worker of a campaign made by `plan_campaign`, without processes, threads or waiting.

    Every method is one step. A GPU worker whose methods are not called for a while acts as if it were frozen; one whose
    methods are never called again acts as if it were killed.
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
        """`monotonic` gives monotonic seconds from any origin; the items in `poison` kill the compute process."""
        self.worker_id = worker_id
        self.ledger = Ledger(store)
        self.survey = Survey(self.ledger, plan.chunk_boundaries)
        self.in_flight = InFlightChunks()
        self.settler = Settler(self.ledger, worker_id, self.in_flight, num_threads=0)
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
        """Write a heartbeat, which names the chunks that it holds."""
        heartbeat = Heartbeat(
            worker_id=self.worker_id,
            order=self._order,
            slot=0,
            host="test",
            status=status,
            reason=reason,
            failure=failure,
            leases=tuple(held.chunk.id for held in self.in_flight.chunks()),
            items_done=self.items_done,
        )
        self.clock.set(self.ledger.beat(heartbeat))

    def lease(self) -> InFlightChunk | None:
        """Lease one chunk, by the current sweep or a new one; return None if there is nothing to lease now."""
        leased = next(self._sweep, None)
        if leased is None:
            self._sweep = self.finder.sweep()
            leased = next(self._sweep, None)
        if leased is None:
            return None
        held = InFlightChunk.of(leased)
        self.in_flight.add(held)
        return held

    def uncomputed(self) -> list[InFlightChunk]:
        """Chunks at the compute process; only one after its first death, so that a death has one suspect."""
        chunks = [held for held in self.in_flight.chunks() if held.items_left]
        return chunks[:1] if self._is_careful else chunks

    def compute(self, held: InFlightChunk, num_items: int = 1) -> bool:
        """Finish the next micro-batch of a chunk; return False if a poison item in it killed the compute process."""
        batch = _next_items(held, num_items)
        if not self._poison.isdisjoint(range(*batch)):
            self.crash(f"died in [{batch.start}, {batch.stop})")
            return False
        held.add(Done(1, batch, noop_rows(batch), 0, 0.0))
        self.items_done += batch.num_items
        if held.items_left == 0:
            self.in_flight.mark_computed()
        return True

    @property
    def is_trusted(self) -> bool:
        """Whether it has finished other work, which shows that its host and image are sound."""
        return self.items_done > 0 or self._is_proven

    def crash(self, detail: str = "died", cause: Cause = Cause.CRASHED) -> None:
        """The compute process dies and starts again, which ends the attempts at all its chunks."""
        chunks = self.uncomputed()
        blames_items = self.is_trusted and len(chunks) == 1
        for held in chunks:
            self.in_flight.mark_computed()
            if held is chunks[0]:
                self.settler.end(held, cause, detail, trusted=blames_items)
            else:
                reason = f"stopped together with another chunk: {detail}"
                self.settler.end(held, Cause.STOPPED, reason, trusted=blames_items)
        self._is_careful = True
        self._is_proven = self.survey.find_committed() is not None

    def give(self) -> None:
        """Give others what they want: a chunk that has not begun as a whole, else the second half of the rest."""
        wanted = self.ledger.wanted()
        for held in self.uncomputed():
            if held.chunk.id not in wanted:
                continue
            if not held.has_begun and self.in_flight.num_uncomputed > 1:
                self.in_flight.mark_computed()
                self.finder.give(held.chunk)
                self.settler.end(held, Cause.RELEASED, "given to a GPU worker that asked")
            elif held.items_left > 1 and len(held.leased.left) == 1:
                kept = self.settler.cut(held)
                self.in_flight.mark_computed()
                if kept is not None:
                    self.finder.give(Chunk(kept.chunk.stop, held.leased.left[0].stop))

    def ask(self) -> None:
        """Ask the GPU worker that holds most items to give some; for when there is nothing to lease."""
        chunk_id = self.finder.busiest()
        if chunk_id is not None:
            self.ledger.want(Chunk.parse(chunk_id), self.worker_id)

    def salvage(self) -> None:
        """Commit the finished items, leave the rest open and end, as after SIGTERM."""
        for held in self.in_flight.chunks():
            self.settler.settle(held)
        self.beat("over", "stopped by SIGTERM")

    def work_on(self) -> None:
        """Lease, compute and settle, one item at a time, until two surveys in a row show the same open chunks."""
        seen: list[list[OpenChunk]] = []
        while True:
            held = self.lease()
            if held is not None:
                self.work_through(held)
                continue
            self.survey.refresh_all()
            left = [list(window.open) for window in self.survey.windows]
            if left == seen:
                return
            seen = left

    def work_through(self, held: InFlightChunk) -> None:
        """Compute and settle one chunk; a poison item in it ends the attempt."""
        self.beat()
        while held.items_left and self.compute(held):
            continue
        if not held.items_left:
            self.settler.settle(held)
        self.beat()


def _next_items(held: InFlightChunk, num_items: int) -> Chunk:
    """Return the next unfinished items of a chunk, within one piece of it."""
    left = sum(piece.num_items for piece in held.leased.left) - held.items_left
    for piece in held.leased.left:
        if left < piece.num_items:
            start = piece.start + left
            return Chunk(start, min(start + num_items, piece.stop))
        left -= piece.num_items
    raise ValueError(f"{held.chunk} is finished")
