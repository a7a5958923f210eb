"""Range algebra. Items of a campaign are numbered `[0, N)`; a chunk is a range of them and its range is its id."""

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


def from_boundaries(cuts: Sequence[int]) -> list[Chunk]:
    """`[0, 3, 7]` → `[0, 3) [3, 7)`."""
    return [Chunk(start, stop) for start, stop in pairwise(cuts)]


def cut_by_weight(weights: Sequence[float], target: float) -> list[int]:
    """Cut items into chunks of about `target` weight each; return the cuts, first 0 and last N.

    Chunks are equal by weight up to one item; an item heavier than `target` is a chunk of its own.
    """
    total = sum(weights)
    if total <= 0:
        return sorted({0, len(weights)})
    num_chunks = max(1, round(min(total / target, _MANY))) if target > 0 else len(weights)
    numbers = [int(end * num_chunks / total) for end in accumulate(weights)]
    inner = (at for at, (number, after) in enumerate(pairwise([0, *numbers]), start=1) if number < after)
    return sorted({0, *inner, len(weights)})


def subtract(whole: Chunk, taken: Iterable[Chunk]) -> list[Chunk]:
    """What is left of `whole` without `taken`, in order, each piece as long as can be."""
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
    """Of `pieces`, those that cover the most items with no overlap, in order."""
    found = sorted(pieces, key=lambda piece: piece.stop)
    stops = [piece.stop for piece in found]
    best: list[tuple[int, list[Chunk]]] = [(0, [])]  # of the first k pieces
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
    """None if `tiles` cover `whole` with no gap and no overlap, else the first problem in words."""
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
