"""Which leased chunks the compute process works on, and which of them are given to other GPU workers."""

from collections.abc import Callable

from gpu_jobs.jobs.failures import Cause
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.worker.in_flight import InFlightChunk, InFlightChunks, Settler
from gpu_jobs.worker.leaser import Leaser
from gpu_jobs.worker.leasing import LeaseFinder
from gpu_jobs.worker.messages import Assign, Cut

PROBE = 0
"""The token of the probe: a committed item that the compute process repeats to prove this GPU worker sound."""


class Assignments:
    """Chunks that were sent to the compute process and are not computed yet. Only the supervisor's thread uses it."""

    def __init__(
        self,
        in_flight: InFlightChunks,
        leaser: Leaser,
        finder: LeaseFinder,
        settler: Settler,
        *,
        send: Callable[[Assign | Cut], None],
        lap: Callable[[], float],
    ) -> None:
        """`send` sends a message to the compute process; `lap` returns the seconds since its last call."""
        self._in_flight = in_flight
        self._leaser = leaser
        self._finder = finder
        self._settler = settler
        self._send = send
        self._lap = lap
        self._by_token: dict[int, InFlightChunk] = {}
        self._last_token = PROBE
        self.wanted: set[str] = set()
        """Ids of the chunks that other GPU workers have asked for."""

    def __bool__(self) -> bool:
        return bool(self._by_token)

    def get(self, token: int) -> InFlightChunk | None:
        """Return None if the chunk was given away."""
        return self._by_token.get(token)

    def chunks(self) -> list[InFlightChunk]:
        """The assigned chunks, each once, in the order of their assignment."""
        return list(dict.fromkeys(self._by_token.values()))

    def assign_ready(self, *, one_at_a_time: bool) -> None:
        """Send leased chunks to the compute process, one message for each piece that is left of a chunk."""
        while self._leaser.ready and not (one_at_a_time and self._by_token):
            held = self._leaser.ready.popleft()
            for piece in held.leased.left:
                self._last_token += 1
                self._by_token[self._last_token] = held
                self._send(Assign(self._last_token, piece))

    def forget(self, held: InFlightChunk) -> None:
        """The compute process has finished this chunk, or will never finish it."""
        for token in self._tokens(held):
            del self._by_token[token]
        self._in_flight.mark_computed()
        self._leaser.has_room(self._lap())

    def give_wanted(self) -> None:
        """Give others what they asked for: a chunk that has not begun as a whole, else the second half of the rest."""
        asked = [held for held in self._in_flight.chunks() if held.chunk.id in self.wanted] if self.wanted else []
        for held in asked:
            if not held.has_begun and self._in_flight.num_uncomputed > 1:
                self._release(held)
            elif held.items_left > 1 and len(self._tokens(held)) == 1:
                self._cut(held)
        self.wanted = set()

    def _tokens(self, held: InFlightChunk) -> list[int]:
        return [token for token, each in self._by_token.items() if each is held]

    def _release(self, held: InFlightChunk) -> None:
        if held in self._leaser.ready:
            self._leaser.ready.remove(held)
        for token in self._tokens(held):
            self._send(Cut(token, 0))
        self.forget(held)
        self._finder.give(held.chunk)
        self._settler.end(held, Cause.RELEASED, "given to a GPU worker that asked")

    def _cut(self, held: InFlightChunk) -> None:
        (token,) = self._tokens(held)
        kept = self._settler.cut(held)
        self._in_flight.mark_computed()
        if kept is None:
            del self._by_token[token]
            self._send(Cut(token, 0))
        else:
            self._by_token[token] = kept
            self._send(Cut(token, kept.chunk.stop))
            self._finder.give(Chunk(kept.chunk.stop, held.leased.left[0].stop))
