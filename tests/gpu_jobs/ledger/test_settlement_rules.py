"""Rules 1 and 2, one case at a time: one settlement per chunk, and parts outlive attempts."""

import pytest

from gpu_jobs.errors import AuditError, StoreUnavailableError
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.open_chunks import Survey
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Committed, Open, Settlement
from gpu_jobs.testing import FakeClock, FakeGpuWorker, MemoryStore, a_policy, noop_rows, plan_campaign

WHOLE = Chunk(0, 8)


class World:
    """One chunk of eight items. `one` leases it first; `two` takes it over once `one` is frozen for long enough."""

    def __init__(self, **faults):
        self.clock = FakeClock()
        self.store = MemoryStore(clock=self.clock, **faults)
        self.plan = plan_campaign(self.store, num_items=8, chunk_boundaries=(0, 8))
        self.ledger = Ledger(self.store)
        self.one, self.two = self.gpu("one"), self.gpu("two")

    def gpu(self, worker_id):
        return FakeGpuWorker(self.store, self.plan, a_policy(), worker_id=worker_id, monotonic=self.clock)

    def take_over(self):
        self.clock.pass_time(100)
        self.two.beat()
        return self.two.lease()

    def tiles(self, chunk=WHOLE):
        return [(tile.kind, tile.range) for tile in self.ledger.settlement(chunk).tiles]


@pytest.fixture
def world():
    return World()


def test_a_zombie_cannot_overwrite(world):
    """Frozen, taken over, awake again: its settlement loses, changes nothing, and its work is dropped."""
    zombie = world.one.lease()
    successor = world.take_over()
    world.two.compute(successor, 8)
    world.two.settler.settle(successor)
    before = world.ledger.settlement(WHOLE)

    world.one.compute(zombie, 8)
    world.one.settler.settle(zombie)

    assert world.ledger.settlement(WHOLE) == before
    assert (world.one.settler.lost_races, world.one.in_flight.chunks()) == (1, [])


def test_the_loser_of_a_cut_keeps_nothing(world):
    """It may not go on with its half: the winner has settled those items."""
    zombie = world.one.lease()
    world.one.compute(zombie)
    successor = world.take_over()
    world.two.compute(successor, 8)
    world.two.settler.settle(successor)

    assert world.one.settler.cut(zombie) is None

    assert world.one.in_flight.chunks() == []
    assert [entry.key for entry in world.store.list(keys.ATTEMPTS)] == [
        keys.attempt_end(WHOLE.id, 1),
        keys.attempt(WHOLE.id, 1),
        keys.attempt(WHOLE.id, 2),
    ]


def test_a_cut_gives_the_second_half_of_the_rest_away(world):
    """What is finished is committed, the first half goes on as a chunk of our own, the second is open."""
    work = world.one.lease()
    world.one.compute(work, 2)

    kept = world.one.settler.cut(work)
    others = world.take_over()

    assert world.tiles() == [("committed", Chunk(0, 2)), ("open", Chunk(2, 5)), ("open", Chunk(5, 8))]
    assert kept.chunk == Chunk(2, 5)
    assert others.chunk in (Chunk(2, 5), Chunk(5, 8))


def test_a_cut_knows_where_the_rest_of_a_chunk_is(world):
    """Also if a part behind it was adopted, so that what is left is in the middle."""
    work = world.one.lease()
    tail = world.ledger.write_part(work.leased.attempt, Chunk(6, 8), noop_rows(Chunk(6, 8)))
    successor = world.take_over()
    assert successor.leased.left == [Chunk(0, 6)]
    assert successor.parts == [tail]

    world.two.settler.cut(successor)

    assert world.tiles() == [("open", Chunk(0, 3)), ("open", Chunk(3, 6)), ("committed", Chunk(6, 8))]


def test_a_salvage_commits_what_is_finished_and_leaves_the_rest_open(world):
    """SIGTERM costs nothing that was finished."""
    work = world.one.lease()
    world.one.compute(work, 3)

    world.one.salvage()

    assert world.ledger.settlement(WHOLE).tiles[1] == Open(range=Chunk(3, 8))
    assert world.tiles() == [("committed", Chunk(0, 3)), ("open", Chunk(3, 8))]


def test_the_next_attempt_goes_on_after_the_last_part(world):
    """A kill costs what was not yet a part."""
    work = world.one.lease()
    world.one.compute(work, 3)
    world.one.settler.write_part(work)
    world.one.compute(work, 2)

    successor = world.take_over()

    assert successor.leased.left == [Chunk(3, 8)]
    world.two.compute(successor, 8)
    world.two.settler.settle(successor)
    assert world.tiles() == [("committed", Chunk(0, 3)), ("committed", Chunk(3, 8))]


def test_a_zombies_small_part_does_not_push_out_a_large_one(world):
    """Of parts that overlap, those are adopted that hold most; no attempt begins with less than was stored."""
    zombie = world.one.lease()
    world.one.compute(zombie, 2)
    successor = world.take_over()
    world.two.compute(successor, 6)
    world.two.settler.write_part(successor)
    world.one.settler.write_part(zombie)
    world.clock.pass_time(100)

    third = world.gpu("three").lease()

    assert [part.range for part in third.parts] == [Chunk(0, 6)]
    assert third.leased.left == [Chunk(6, 8)]


def test_parts_that_cover_everything_are_settled_without_computing(world):
    """The holder died between its last part and its settlement."""
    work = world.one.lease()
    world.one.compute(work, 8)
    world.one.settler.write_part(work)

    assert world.take_over() is None

    assert world.tiles() == [("committed", WHOLE)]


def test_a_lost_reply_to_a_settlement_is_no_loss():
    """Whoever asks again with the same bytes has won."""
    world = World(reply_lost=lambda number, key: key == keys.settled(WHOLE.id) and number < 9)
    work = world.one.lease()
    world.one.compute(work, 8)
    with pytest.raises(StoreUnavailableError):
        world.one.settler.settle(work)

    world.clock.pass_time(1)
    for _ in range(3):
        world.one.beat()
    world.one.settler.settle(work)

    assert world.one.settler.lost_races == 0
    assert world.tiles() == [("committed", WHOLE)]


def test_one_attempt_has_one_holder(world):
    """A part that is there with other bytes means that two GPU workers hold the same attempt: both must know."""
    work = world.one.lease()
    world.ledger.write_part(work.leased.attempt, Chunk(0, 1), b"mine")

    assert world.ledger.write_part(work.leased.attempt, Chunk(0, 1), b"mine")
    with pytest.raises(AuditError, match="two GPU workers hold one attempt"):
        world.ledger.write_part(work.leased.attempt, Chunk(0, 1), b"yours")


@pytest.mark.parametrize("num_open", [3, 500])
def test_a_chunk_with_many_holes_can_be_settled_and_they_are_seen(num_open):
    """What does not fit into a listing is read from the settlement itself."""
    store = MemoryStore()
    holes = [Open(range=Chunk(2 * at, 2 * at + 1), crashes=1) for at in range(num_open)]
    done = [
        Committed(range=Chunk(hole.range.stop, hole.range.stop + 1), part="parts/any", sha256="0") for hole in holes
    ]
    tiles = tuple(sorted([*holes, *done], key=lambda tile: tile.range))
    whole = Chunk(0, 2 * num_open)
    ledger = Ledger(store)

    assert ledger.settle(Settlement(chunk=whole, attempt=1, worker_id="one", tiles=tiles))

    survey = Survey(ledger, (0, whole.stop))
    survey.refresh_all()
    assert [(each.chunk, each.crashes) for each in survey.windows[0].open] == [(hole.range, 1) for hole in holes]
    assert survey.items_left == num_open
