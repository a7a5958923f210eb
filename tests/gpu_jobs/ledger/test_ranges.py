"""Range algebra holds for every campaign, however cut."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_jobs.ledger.ledger import OpenChunk, descend
from gpu_jobs.ledger.ranges import Chunk, best_cover, cut_by_weight, from_boundaries, halve, subtract, tiling_problem

QUICK = settings(max_examples=200, deadline=None)
POSITIONS = st.integers(0, 10**12 - 1)
CHUNKS = st.tuples(POSITIONS, POSITIONS).map(lambda pair: Chunk(*sorted(pair)))
WEIGHTS = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=80)


@st.composite
def small_chunks(draw, upto=30):
    start = draw(st.integers(0, upto - 1))
    return Chunk(start, draw(st.integers(start + 1, upto)))


@st.composite
def tilings(draw):
    """A chunk, and pieces that tile it, in order."""
    cuts = sorted(draw(st.sets(st.integers(0, 40), min_size=2, max_size=12)))
    return Chunk(cuts[0], cuts[-1]), from_boundaries(cuts)


def items(pieces):
    return sorted(item for piece in pieces for item in range(*piece))


@QUICK
@given(CHUNKS, CHUNKS)
def test_ids_sort_like_positions(one, other):
    """A listing by id is a listing by position."""
    assert (one.id < other.id) == (one < other)


@QUICK
@given(CHUNKS)
def test_parse_is_the_inverse_of_id(chunk):
    """A chunk's id is its range."""
    assert Chunk.parse(chunk.id) == chunk


@QUICK
@given(WEIGHTS, st.floats(0, 1e7))
def test_cuts_partition_the_items(weights, target):
    """Every item is in exactly one chunk, and no chunk is empty."""
    chunks = from_boundaries(cut_by_weight(weights, target))

    assert tiling_problem(chunks, Chunk(0, len(weights))) is None


@QUICK
@given(WEIGHTS, st.floats(0.01, 1e7))
def test_chunks_weigh_the_same_within_one_item(weights, target):
    """No chunk exceeds its share, or falls short of it, by more than one item."""
    chunks = from_boundaries(cut_by_weight(weights, target))

    share = sum(weights) / max(1, round(sum(weights) / target))
    slack = 1e-6 * sum(weights)
    for chunk in chunks:
        inside = weights[chunk.start : chunk.stop]
        assert sum(inside) <= share + max(inside) + slack
        assert sum(inside) >= share - max(weights) - slack


@QUICK
@given(st.lists(st.just(1.0), min_size=1, max_size=200), st.integers(1, 50))
def test_equal_items_give_equal_chunks(weights, target):
    """With equal weights the longest and the shortest chunk differ by at most one item."""
    lengths = [chunk.num_items for chunk in from_boundaries(cut_by_weight(weights, target))]

    assert max(lengths) - min(lengths) <= 1


def test_an_item_heavier_than_the_target_is_a_chunk_of_its_own():
    """A long video does not drag others along."""
    assert cut_by_weight([1, 1, 100, 1, 1], 2) == [0, 2, 3, 5]


def test_a_tiny_target_gives_a_chunk_to_each_item():
    """A mistyped chunk weight costs no more time than any other."""
    assert cut_by_weight([1.0, 2.0, 3.0], 1e-300) == [0, 1, 2, 3]


def test_no_items_no_chunks():
    """An empty dataset has no chunk."""
    assert from_boundaries(cut_by_weight([], 1.0)) == []


@QUICK
@given(small_chunks(), st.lists(small_chunks(), max_size=6))
def test_what_is_left_and_what_is_taken_tile_the_whole(whole, taken):
    """`subtract` loses no item, repeats none, and its pieces are as long as can be."""
    left = subtract(whole, taken)

    assert items(left) == sorted(set(range(*whole)) - set(items(taken)))
    assert all(one.stop < two.start for one, two in pairwise(left))


@QUICK
@given(CHUNKS)
def test_halves_tile_and_are_smaller(chunk):
    """Halving ends: each half of two or more items is smaller than the whole, and none is empty."""
    if not chunk.num_items:
        return
    halves = halve(chunk)

    assert tiling_problem(halves, chunk) is None
    assert len(halves) == min(2, chunk.num_items)
    assert max(half.num_items for half in halves) == (chunk.num_items + 1) // 2


@QUICK
@given(st.lists(small_chunks(upto=12), max_size=7))
def test_best_cover_is_the_best_without_overlap(pieces):
    """No other choice of pieces that do not overlap holds more items."""
    chosen = best_cover(pieces)

    most = 0
    for mask in range(1 << len(pieces)):
        picked = items(piece for at, piece in enumerate(pieces) if mask >> at & 1)
        most = max(most, len(picked) if len(set(picked)) == len(picked) else 0)
    assert items(chosen) == sorted(set(items(chosen)))
    assert len(items(chosen)) == most
    assert chosen == sorted(chosen)


@QUICK
@given(tilings())
def test_a_tiling_has_no_problem(tiling):
    """Pieces in any order tile the chunk that they were cut from."""
    whole, pieces = tiling

    assert tiling_problem(reversed(pieces), whole) is None


@QUICK
@given(tilings(), st.data())
def test_each_gap_is_found(tiling, data):
    """Without any one piece there is a gap exactly where it was."""
    whole, pieces = tiling
    gone = data.draw(st.sampled_from(pieces))

    problem = tiling_problem([piece for piece in pieces if piece != gone], whole)

    assert problem is not None
    assert problem.startswith(f"gap [{gone.start}, ")


@QUICK
@given(tilings(), st.data())
def test_each_overlap_is_found(tiling, data):
    """One piece too many, wherever it lies, is an overlap."""
    whole, pieces = tiling
    start = data.draw(st.integers(whole.start, whole.stop - 1))
    extra = Chunk(start, data.draw(st.integers(start + 1, whole.stop)))

    problem = tiling_problem([*pieces, extra], whole)

    assert problem is not None
    assert problem.startswith("overlap")


@pytest.mark.parametrize(
    ("tiles", "problem"),
    [
        ([Chunk(0, 5), Chunk(5, 12)], "overlap [10, 12)"),
        ([Chunk(0, 5)], "gap [5, 10)"),
        ([Chunk(0, 10), Chunk(10, 10)], "tile [10, 10) is empty"),
        ([Chunk(0, 10), Chunk(10, 12)], "overlap [10, 12)"),
        ([], "gap [0, 10)"),
    ],
)
def test_problems_at_the_end_are_named(tiles, problem):
    """What sticks out, what falls short and what is empty is said with its range."""
    assert tiling_problem(tiles, Chunk(0, 10)) == problem


@QUICK
@given(tilings(), st.data())
def test_descending_finds_exactly_what_nobody_settled(tiling, data):
    """Whatever was settled and split, settled and open pieces tile the plan, and crashes come from the last split."""
    whole, planned = tiling
    settled, committed, left = {}, [], {}

    def settle(found, depth):
        if depth == 0 or not data.draw(st.booleans()):
            left[found.chunk] = found.crashes
            return
        halves = halve(found.chunk) if found.chunk.num_items > 1 else ()
        opened = tuple(OpenChunk(half, depth) for half in halves if data.draw(st.booleans()))
        committed.extend(subtract(found.chunk, (each.chunk for each in opened)))
        settled[found.chunk] = opened
        for each in opened:
            settle(each, depth - 1)

    for chunk in planned:
        settle(OpenChunk(chunk, 0), 3)

    found = list(descend(planned, settled))

    assert {each.chunk: each.crashes for each in found} == left
    assert [each.chunk for each in found] == sorted(left)
    assert tiling_problem([*committed, *left], whole) is None
