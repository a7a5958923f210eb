"""Arithmetic of ranges. Items of a campaign are numbered `[0, N)`; a chunk is a range of them, which is also its id."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, Self

_DIGITS = 12
_MANY = 1e15


class Chunk(NamedTuple):
    """The items `[start, stop)`."""

    start: int
    stop: int

    @property
    def id(self) -> str:
        """`<start>-<stop>`, zero-padded, so that ids sort by position."""
        return f"{self.start:0{_DIGITS}d}-{self.stop:0{_DIGITS}d}"

    @property
    def num_items(self) -> int:
        return self.stop - self.start

    @classmethod
    def parse(cls, chunk_id: str) -> Self:
        start, stop = chunk_id.split("-")
        return cls(int(start), int(stop))

    def holds(self, other: "Chunk") -> bool:
        """True if `other` lies within this chunk."""
        return self.start <= other.start and other.stop <= self.stop


def from_boundaries(boundaries: Sequence[int]) -> list[Chunk]:
    """The chunks between the boundaries: `[0, 3, 7]` gives `[0, 3)` and `[3, 7)`."""
    return [Chunk(start, stop) for start, stop in pairwise(boundaries)]


def cut_by_weight(weights: Sequence[float], target: float) -> list[int]:
    """Divide items into chunks of about `target` weight each; return the chunk boundaries, first 0 and last N.

    The weights of two chunks differ by one item at most; an item heavier than `target` is a chunk of its own.
    """
    total = sum(weights)
    if total <= 0:
        return sorted({0, len(weights)})
    num_chunks = max(1, round(min(total / target, _MANY))) if target > 0 else len(weights)
    numbers = [int(end * num_chunks / total) for end in accumulate(weights)]
    inner = (at for at, (number, after) in enumerate(pairwise([0, *numbers]), start=1) if number < after)
    return sorted({0, *inner, len(weights)})


def subtract(whole: Chunk, taken: Iterable[Chunk]) -> list[Chunk]:
    """What is left of `whole` without `taken`: pieces in order, each as long as possible."""
    left, at = [], whole.start
    for piece in sorted(taken):
        if piece.start > at:
            left.append(Chunk(at, min(piece.start, whole.stop)))
        at = max(at, piece.stop)
        if at >= whole.stop:
            break
    if at < whole.stop:
        left.append(Chunk(at, whole.stop))
    return left


def best_cover(pieces: Iterable[Chunk]) -> list[Chunk]:
    """Those of `pieces` that together cover the most items with no overlap, in order."""
    found = sorted(pieces, key=lambda piece: piece.stop)
    stops = [piece.stop for piece in found]
    best: list[tuple[int, list[Chunk]]] = [(0, [])]  # best[k] is the best choice from the first k pieces
    for number, piece in enumerate(found):
        covered, chosen = best[bisect_right(stops, piece.start, hi=number)]
        taken = (covered + piece.num_items, [*chosen, piece])
        best.append(max(best[-1], taken, key=lambda each: each[0]))
    return best[-1][1]


def halve(chunk: Chunk) -> tuple[Chunk, ...]:
    """Two halves, or the chunk itself if it has one item."""
    middle = (chunk.start + chunk.stop) // 2
    return (chunk,) if middle == chunk.start else (Chunk(chunk.start, middle), Chunk(middle, chunk.stop))


def tiling_problem(tiles: Iterable[Chunk], whole: Chunk) -> str | None:
    """The first problem, in words for people; None if `tiles` cover `whole` with no gap and no overlap."""
    at = whole.start
    for tile in sorted(tiles):
        if tile.stop <= tile.start:
            return f"tile [{tile.start}, {tile.stop}) is empty"
        if tile.start > at:
            return f"gap [{at}, {tile.start})"
        if tile.start < at:
            return f"overlap [{tile.start}, {min(at, tile.stop)})"
        at = tile.stop
    if at != whole.stop:
        return f"gap [{at}, {whole.stop})" if at < whole.stop else f"overlap [{whole.stop}, {at})"
    return None
