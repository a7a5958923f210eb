"""What is still to do: the chunks that nobody has settled, found window by window.

One listing of `settled/` shows a window of about a thousand planned chunks, splits included, because a chunk's id is
its range. A window once seen done is never listed again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from gpu_jobs.ledger import keys
from gpu_jobs.ledger.ledger import Ledger, OpenChunk, descend
from gpu_jobs.ledger.ranges import Chunk, from_boundaries
from gpu_jobs.ledger.records import IN_BODY
from gpu_jobs.store.base import Entry, Summary

WINDOW_CHUNKS = 1000


@dataclass(slots=True)
class Window:
    """A stretch of planned chunks, as last listed."""

    planned: Sequence[Chunk]
    open: list[OpenChunk] = field(default_factory=list)
    quarantined_items: int = 0

    @property
    def range(self) -> Chunk:
        return Chunk(self.planned[0].start, self.planned[-1].stop)

    @property
    def items_left(self) -> int:
        return sum(found.chunk.num_items for found in self.open)

    def update(self, settled: Mapping[tuple[int, int], Summary]) -> None:
        """Take in what is settled, given the summaries of all settlements in this window by range."""
        summed = {Chunk(*span): summary for span, summary in settled.items() if summary}
        if not summed and all(chunk in settled for chunk in self.planned):
            self.open, self.quarantined_items = [], 0  # the usual end, without a look at each tile
            return
        tiles = {Chunk(*span): parse_open(summary) if summary else () for span, summary in settled.items()}
        self.open = list(descend(self.planned, tiles))
        self.quarantined_items = sum(int(summary.get("failed", 0)) for summary in summed.values())


@dataclass(slots=True)
class Lease:
    """The newest attempt at a chunk, as listed."""

    number: int
    began_at: float
    """By the store's clock."""
    ended: bool


class Survey:
    """The windows of one campaign; `refresh` lists one, `windows` shows what is known."""

    def __init__(self, ledger: Ledger, cuts: Sequence[int]) -> None:
        self._ledger = ledger
        planned = from_boundaries(cuts)
        stretches = [planned[first : first + WINDOW_CHUNKS] for first in range(0, len(planned), WINDOW_CHUNKS)]
        self.windows = [Window(stretch, [OpenChunk(chunk, 0) for chunk in stretch]) for stretch in stretches]

    def refresh(self, window: Window) -> None:
        """List which chunks of a window are settled, unless all were."""
        if window.open:
            window.update(dict(self._settled(window.range)))

    def refresh_all(self) -> None:
        """Refresh every window that is not done; neighbours share one listing."""
        for run in self._open_runs():
            listed = self._settled(_span(run))
            following = next(listed, None)
            for window in run:
                stop, found = window.range.stop, {}
                while following is not None and following[0][0] < stop:
                    found[following[0]] = following[1]
                    following = next(listed, None)
                window.update(found)

    def newest_attempts(self) -> dict[Chunk, Lease]:
        """The newest attempt at each chunk of all windows that are not done."""
        return {chunk: lease for run in self._open_runs() for chunk, lease in self._leases(_span(run)).items()}

    @property
    def items_left(self) -> int:
        return sum(window.items_left for window in self.windows)

    @property
    def quarantined_items(self) -> int:
        return sum(window.quarantined_items for window in self.windows)

    def find_committed(self) -> int | None:
        """The number of some item that is committed, if any is."""
        for entry in self._ledger.store.list(keys.SETTLED):
            settlement = self._ledger.settlement(Chunk.parse(keys.stem(entry.key)))
            for tile in settlement.tiles if settlement else ():
                if tile.kind == "committed":
                    return tile.range.start
        return None

    def leases(self, window: Window) -> dict[Chunk, Lease]:
        """The newest attempt at each chunk of a window that has one."""
        return self._leases(window.range)

    def _open_runs(self) -> Iterator[list[Window]]:
        """Stretches of neighbouring windows that are not done."""
        for is_open, run in groupby(self.windows, key=lambda window: bool(window.open)):
            if is_open:
                yield list(run)

    def _settled(self, span: Chunk) -> Iterator[tuple[tuple[int, int], Summary]]:
        """Range and summary of each settlement whose chunk begins in the span, in order of their begin."""
        at = len(keys.SETTLED)
        for key, _, _, summary in self._entries(keys.SETTLED, span):
            start, _, stop = key[at:-5].partition("-")  # without ".json"
            chunk = Chunk(int(start), int(stop))
            settlement = self._ledger.settlement(chunk) if IN_BODY in summary else None
            yield (chunk.start, chunk.stop), settlement.full_summary if settlement else summary

    def _leases(self, span: Chunk) -> dict[Chunk, Lease]:
        newest: dict[Chunk, Lease] = {}
        for entry in self._entries(keys.ATTEMPTS, span):
            attempt = keys.parse_attempt(entry.key)
            chunk = Chunk.parse(attempt.chunk_id)
            known = newest.get(chunk)
            if known is None or known.number < attempt.number:
                known = newest[chunk] = Lease(attempt.number, entry.stored_at, ended=False)
            known.ended |= attempt.is_end
        return newest

    def _entries(self, folder: str, span: Chunk) -> Iterator[Entry]:
        """Objects of one folder whose chunk begins in the span."""
        end = folder + Chunk(span.stop, 0).id[:12]
        for entry in self._ledger.store.list(folder, after=folder + Chunk(span.start, 0).id[:12]):
            if entry.key >= end:
                return
            yield entry


def _span(run: Sequence[Window]) -> Chunk:
    return Chunk(run[0].range.start, run[-1].range.stop)


def parse_open(summary: Summary) -> tuple[OpenChunk, ...]:
    """The open tiles that a settlement's summary names."""
    listed = summary.get("open")
    pairs = (tile.split(":") for tile in listed.split(",")) if listed else ()
    return tuple(OpenChunk(Chunk.parse(chunk_id), int(crashes)) for chunk_id, crashes in pairs)
