"""The chunks in flight in a GPU worker, and how their rows become parts and settlements."""

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
class InFlightChunk:
    """One leased chunk, its finished rows, and the number of items left. Rows arrive in order within a piece."""

    leased: Leased
    items_left: int
    parts: list[Committed]
    buffer: list[Done] = field(default_factory=list)
    buffered_at: float = 0.0
    """`time.monotonic()` when the oldest row in the buffer arrived."""
    has_begun: bool = False
    worked_s: float = 0.0
    """Seconds of work on this attempt."""
    unsaved_s: float = 0.0
    """The share of `worked_s` that went into rows which are in no part yet."""
    advanced: bool = False
    """Whether this attempt has written a part, or a checkpoint of a long item."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the buffer becomes a part, and while a settlement is written."""
    _mutex: threading.Lock = field(default_factory=threading.Lock)
    """Held while the buffer is filled or emptied."""

    @classmethod
    def of(cls, leased: Leased) -> "InFlightChunk":
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
        """Empty the buffer; return its content in stretches without gaps."""
        with self._mutex:
            taken, self.buffer = self.buffer, []
        stretches: list[list[Done]] = []
        for done in taken:
            if stretches and stretches[-1][-1].range.stop == done.range.start:
                stretches[-1].append(done)
            else:
                stretches.append([done])
        return stretches


class InFlightChunks:
    """All chunks in flight, shared by the threads of a supervisor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chunks: dict[Chunk, InFlightChunk] = {}
        self.hedged_s = 0.0
        """Working seconds spent on chunks that another GPU worker settled first."""
        self.num_uncomputed = 0
        """How many of the chunks still need the compute process."""

    def add(self, held: InFlightChunk) -> None:
        with self._lock:
            self._chunks[held.chunk] = held
            self.num_uncomputed += 1

    def mark_computed(self) -> None:
        """One chunk no longer needs the compute process; it only waits to be settled or ended."""
        with self._lock:
            self.num_uncomputed -= 1

    def remove(self, held: InFlightChunk) -> None:
        """The chunk is settled or its attempt has ended, so it is no longer ours."""
        with self._lock:
            self._chunks.pop(held.chunk, None)

    def note_hedged(self, held: InFlightChunk) -> None:
        """Another GPU worker settled the chunk first, so the work on it was wasted."""
        with self._lock:
            self.hedged_s += held.worked_s

    @property
    def unsaved_s(self) -> float:
        """Working seconds that would be lost if this process died now."""
        return sum(held.unsaved_s for held in self.chunks())

    def chunks(self) -> list[InFlightChunk]:
        with self._lock:
            return list(self._chunks.values())


class Settler:
    """Writes parts and settlements in threads, so that neither leasing nor computing waits for the store."""

    def __init__(
        self, ledger: Ledger, worker_id: str, in_flight: InFlightChunks, *, num_threads: int = _THREADS
    ) -> None:
        """With `num_threads=0`, the calling thread writes everything at once."""
        self._ledger = ledger
        self._worker_id = worker_id
        self._in_flight = in_flight
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._drain, name=f"settle-{n}") for n in range(num_threads)]
        self.lost_races = 0
        self.error: Exception | None = None
        """The error that prevents further writes, so that the GPU worker must end."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Wait until everything requested so far is written, and end the threads."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def write_part(self, held: InFlightChunk) -> None:
        """Write the finished rows as parts."""
        self._ask(lambda: self._flush(held))

    def settle(self, held: InFlightChunk) -> None:
        """Commit the finished items and leave the rest open; if nothing is finished, end the attempt as stopped."""
        self._ask(lambda: self._settle(held))

    def end(self, held: InFlightChunk, cause: Cause, detail: str, *, trusted: bool = False) -> None:
        """Write the finished rows as parts and record how the attempt ended; the next attempt continues from there."""
        self._ask(lambda: self._end(held, cause, detail, trusted=trusted))

    def cut(self, held: InFlightChunk) -> InFlightChunk | None:
        """Commit the finished items and give away the second half of the rest, which must be one piece of items.

        Blocks until the settlement is written. Returns the first half as a new chunk in flight, or None if another
        GPU worker was faster.
        """
        self._flush(held)
        (piece,) = held.leased.left
        pieces = halve(Chunk(piece.stop - held.items_left, piece.stop))
        crashes = held.leased.crashes
        with held.lock:
            if not self._write_settlement(held, (*held.parts, *(Open(range=each, crashes=crashes) for each in pieces))):
                return None
        attempt = Attempt(chunk=pieces[0], number=1, worker_id=self._worker_id, follows="")
        if not self._ledger.begin(attempt):
            return None
        kept = InFlightChunk.of(Leased(attempt=attempt, crashes=crashes, left=[pieces[0]]))
        kept.has_begun = True
        self._in_flight.add(kept)
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
                except Exception as error:  # noqa: BLE001 - the supervisor reads it and ends
                    self.error = error

    def _flush(self, held: InFlightChunk) -> None:
        with held.lock:
            for stretch in held.take():
                covered = Chunk(stretch[0].range.start, stretch[-1].range.stop)
                body = rows.join([done.body for done in stretch])
                num_failed = sum(done.num_failed for done in stretch)
                held.parts.append(self._ledger.write_part(held.leased.attempt, covered, body, num_failed))
                held.advanced = True
                held.unsaved_s = 0.0

    def _settle(self, held: InFlightChunk) -> None:
        self._flush(held)
        with held.lock:
            if held.parts:
                self._write_settlement(held, tiles_left(held.chunk, held.parts, held.leased.crashes))
                return
        self._end(held, Cause.STOPPED, "left at a checkpoint" if held.advanced else "nothing was finished yet")

    def _write_settlement(self, held: InFlightChunk, tiles: tuple[Tile, ...]) -> bool:
        """Return False if another GPU worker has settled the chunk; in both cases it is no longer ours."""
        attempt = held.leased.attempt
        tiles = tuple(sorted(tiles, key=lambda tile: tile.range))
        settlement = Settlement(chunk=held.chunk, attempt=attempt.number, worker_id=self._worker_id, tiles=tiles)
        has_won = self._ledger.settle(settlement)
        self.lost_races += not has_won
        if not has_won:
            self._in_flight.note_hedged(held)
        self._in_flight.remove(held)
        return has_won

    def _end(self, held: InFlightChunk, cause: Cause, detail: str, *, trusted: bool = False) -> None:
        self._flush(held)
        end = AttemptEnd(cause=cause, detail=detail, advanced=held.advanced, trusted=trusted)
        self._ledger.end(held.chunk, held.leased.attempt.number, end)
        self._in_flight.remove(held)


def clip(done: Done, chunk: Chunk) -> Done:
    """Keep only the finished items that belong to `chunk`; the others were given away while they were computed."""
    if chunk.holds(done.range):
        return done
    covered = Chunk(max(done.range.start, chunk.start), min(done.range.stop, chunk.stop))
    frame = rows.decode(done.body).filter(pl.col("item_index").is_between(covered.start, covered.stop, closed="left"))
    body = rows.encode(frame)
    return done._replace(range=covered, body=body, num_failed=len(rows.failed_items(body)))
