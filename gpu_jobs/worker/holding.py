"""What a GPU worker has in hand, and how it becomes parts and settlements."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue

import polars as pl

from gpu_jobs.jobs.failures import AttemptEnd, Cause
from gpu_jobs.ledger import rows
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.ranges import Chunk, halve
from gpu_jobs.ledger.records import Attempt, Committed, Open, Settlement, Tile, tiles_left
from gpu_jobs.worker.leasing import Leased
from gpu_jobs.worker.messages import Done

_THREADS = 4


@dataclass(slots=True, eq=False)
class Work:
    """One leased chunk, its finished rows, and what is left of it. Rows arrive in order within a piece."""

    leased: Leased
    items_left: int
    parts: list[Committed]
    buffer: list[Done] = field(default_factory=list)
    buffered_at: float = 0.0
    """`time.monotonic()` of the oldest row in the buffer."""
    has_begun: bool = False
    worked_s: float = 0.0
    unsaved_s: float = 0.0
    """Of `worked_s`, what went into rows that are in no part yet."""
    advanced: bool = False
    """This attempt has written a part, or a checkpoint of a long item."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the buffer becomes a part, and while a settlement is written."""
    _mutex: threading.Lock = field(default_factory=threading.Lock)
    """Held while the buffer changes hands."""

    @classmethod
    def of(cls, leased: Leased) -> "Work":
        return cls(leased, sum(piece.num_items for piece in leased.left), list(leased.parts))

    @property
    def chunk(self) -> Chunk:
        return self.leased.chunk

    def add(self, done: Done) -> None:
        with self._mutex:
            if not self.buffer:
                self.buffered_at = time.monotonic()
            self.buffer.append(done)
        self.items_left -= done.range.num_items
        self.has_begun = True

    def take(self) -> list[list[Done]]:
        """Empty the buffer; what was in it, in stretches without a gap."""
        with self._mutex:
            taken, self.buffer = self.buffer, []
        stretches: list[list[Done]] = []
        for done in taken:
            if stretches and stretches[-1][-1].range.stop == done.range.start:
                stretches[-1].append(done)
            else:
                stretches.append([done])
        return stretches


class Hands:
    """The works in hand, shared by the threads of a supervisor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._works: dict[Chunk, Work] = {}
        self.hedged_s = 0.0
        """Working seconds on chunks that somebody else settled first."""
        self.num_uncomputed = 0
        """Of those in hand, how many the compute process has not finished."""

    def take(self, work: Work) -> None:
        with self._lock:
            self._works[work.chunk] = work
            self.num_uncomputed += 1

    def computed(self) -> None:
        """One more is finished and only waits to be settled."""
        with self._lock:
            self.num_uncomputed -= 1

    def drop(self, work: Work) -> None:
        """Settled or ended: no longer ours."""
        with self._lock:
            self._works.pop(work.chunk, None)

    def outrun(self, work: Work) -> None:
        """Somebody else has settled it."""
        with self._lock:
            self.hedged_s += work.worked_s

    @property
    def unsaved_s(self) -> float:
        """Working seconds that are lost if this process dies now."""
        return sum(work.unsaved_s for work in self.works())

    def works(self) -> list[Work]:
        with self._lock:
            return list(self._works.values())


class Settler:
    """Writes parts and settlements in threads, so that neither leasing nor computing waits for the store."""

    def __init__(self, ledger: Ledger, worker_id: str, hands: Hands, *, num_threads: int = _THREADS) -> None:
        """With no threads, everything is written at once by the caller's."""
        self._ledger = ledger
        self._worker_id = worker_id
        self._hands = hands
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._drain, name=f"settle-{n}") for n in range(num_threads)]
        self.lost_races = 0
        self.error: Exception | None = None
        """Why nothing more can be written; the GPU worker must end."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Wait for everything that was asked for."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def write_part(self, work: Work) -> None:
        """Make a part of what is finished."""
        self._ask(lambda: self._flush(work))

    def settle(self, work: Work) -> None:
        """Commit what is finished and leave the rest open; with nothing finished, end the attempt as stopped."""
        self._ask(lambda: self._settle(work))

    def end(self, work: Work, cause: Cause, detail: str, *, vouched: bool = False) -> None:
        """Keep what is finished as parts and tell how the attempt ended; the next one goes on from there."""
        self._ask(lambda: self._end(work, cause, detail, vouched=vouched))

    def cut(self, work: Work) -> Work | None:
        """Commit what is finished and give away the second half of the rest, which must be one piece of items.

        Waits until it is written. Returns the first half as a work of ours; None if somebody else was faster.
        """
        self._flush(work)
        (piece,) = work.leased.left
        pieces = halve(Chunk(piece.stop - work.items_left, piece.stop))
        crashes = work.leased.crashes
        with work.lock:
            if not self._write_settlement(work, (*work.parts, *(Open(range=each, crashes=crashes) for each in pieces))):
                return None
        attempt = Attempt(chunk=pieces[0], number=1, worker_id=self._worker_id, follows="")
        if not self._ledger.begin(attempt):
            return None
        kept = Work.of(Leased(attempt=attempt, crashes=crashes, left=[pieces[0]]))
        kept.has_begun = True
        self._hands.take(kept)
        return kept

    def _ask(self, act: Callable[[], None]) -> None:
        if self._threads:
            self._queue.put(act)
        else:
            act()

    def _drain(self) -> None:
        while (act := self._queue.get()) is not None:
            if self.error is None:
                try:
                    act()
                except Exception as error:  # noqa: BLE001 - told to the supervisor, which ends
                    self.error = error

    def _flush(self, work: Work) -> None:
        with work.lock:
            for stretch in work.take():
                covered = Chunk(stretch[0].range.start, stretch[-1].range.stop)
                body = rows.join([done.body for done in stretch])
                num_failed = sum(done.num_failed for done in stretch)
                work.parts.append(self._ledger.write_part(work.leased.attempt, covered, body, num_failed))
                work.advanced = True
                work.unsaved_s = 0.0

    def _settle(self, work: Work) -> None:
        self._flush(work)
        with work.lock:
            if work.parts:
                self._write_settlement(work, tiles_left(work.chunk, work.parts, work.leased.crashes))
                return
        self._end(work, Cause.STOPPED, "left at a checkpoint" if work.advanced else "nothing was finished yet")

    def _write_settlement(self, work: Work, tiles: tuple[Tile, ...]) -> bool:
        """False if somebody else has settled the chunk; either way it is no longer ours."""
        attempt = work.leased.attempt
        tiles = tuple(sorted(tiles, key=lambda tile: tile.range))
        settlement = Settlement(chunk=work.chunk, attempt=attempt.number, worker_id=self._worker_id, tiles=tiles)
        has_won = self._ledger.settle(settlement)
        self.lost_races += not has_won
        if not has_won:
            self._hands.outrun(work)
        self._hands.drop(work)
        return has_won

    def _end(self, work: Work, cause: Cause, detail: str, *, vouched: bool = False) -> None:
        self._flush(work)
        end = AttemptEnd(cause=cause, detail=detail, advanced=work.advanced, trusted=vouched)
        self._ledger.end(work.chunk, work.leased.attempt.number, end)
        self._hands.drop(work)


def clip(done: Done, chunk: Chunk) -> Done:
    """Of finished items, those of `chunk`: others were given away while they were in the works."""
    if chunk.holds(done.range):
        return done
    covered = Chunk(max(done.range.start, chunk.start), min(done.range.stop, chunk.stop))
    frame = rows.decode(done.body).filter(pl.col("item_index").is_between(covered.start, covered.stop, closed="left"))
    body = rows.encode(frame)
    return done._replace(range=covered, body=body, num_failed=len(rows.failed_items(body)))
