"""Rule 6: crashes put the blame on items, attempts do not."""

from itertools import product

import pytest

from gpu_jobs.campaign.collect import audit
from gpu_jobs.jobs.failures import AttemptEnd, Cause, Verdict, judge
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Open, Quarantined
from gpu_jobs.testing import FakeClock, FakeGpuWorker, MemoryStore, a_policy, plan_campaign

CRASH = AttemptEnd(cause=Cause.CRASHED, detail="signal 11", trusted=True)
STALL = AttemptEnd(cause=Cause.STALLED, trusted=True)
UNPROVEN = AttemptEnd(cause=Cause.CRASHED, trusted=False)
ADVANCED = AttemptEnd(cause=Cause.CRASHED, trusted=True, advanced=True)
HARMLESS = [AttemptEnd(cause=cause, trusted=True) for cause in Cause if cause not in ("crashed", "stalled")]


@pytest.mark.parametrize(
    ("ends", "inherited", "items_left", "verdict"),
    [
        ([], 0, 8, Verdict.WORK),
        ([CRASH], 0, 8, Verdict.WORK),
        ([CRASH, CRASH], 0, 8, Verdict.HALVE),
        ([CRASH, STALL], 0, 2, Verdict.HALVE),
        ([CRASH, *HARMLESS, CRASH], 0, 1, Verdict.QUARANTINE),
        ([CRASH], 1, 8, Verdict.HALVE),
        ([CRASH], 1, 1, Verdict.QUARANTINE),
        ([], 1, 1, Verdict.WORK),
        ([UNPROVEN] * 9, 0, 1, Verdict.WORK),
        ([ADVANCED] * 9, 0, 8, Verdict.WORK),
        ([CRASH, ADVANCED, UNPROVEN], 0, 1, Verdict.WORK),
        (HARMLESS * 9, 0, 1, Verdict.WORK),
        (HARMLESS * 9, 1, 1, Verdict.WORK),
        ([CRASH, CRASH], 0, 0, Verdict.WORK),
    ],
)
def test_judge(ends, inherited, items_left, verdict):
    """Two crashes blamed on a chunk halve what is left of it, and quarantine a lone item; nothing else does."""
    assert judge(ends, inherited=inherited, items_left=items_left, max_crashes=2) is verdict


def test_only_crashes_of_trusted_gpu_workers_without_progress_blame_items():
    """The whole table of ends."""
    blaming = {
        (cause, advanced, trusted)
        for cause, advanced, trusted in product(Cause, (False, True), (False, True))
        if AttemptEnd(cause=cause, advanced=advanced, trusted=trusted).blames_items
    }

    assert blaming == {(Cause.CRASHED, False, True), (Cause.STALLED, False, True)}


class World:
    """A campaign of eight items in two chunks, and GPU workers that come and go."""

    def __init__(self, *poison):
        self.clock = FakeClock()
        self.store = MemoryStore(clock=self.clock)
        self.plan = plan_campaign(self.store, num_items=8, chunk_boundaries=(0, 4, 8))
        self.ledger = Ledger(self.store)
        self.poison = poison
        self.num_boots = 0

    def gpu(self):
        self.num_boots += 1
        worker_id = f"gpu-{self.num_boots}"
        return FakeGpuWorker(
            self.store, self.plan, a_policy(), worker_id=worker_id, monotonic=self.clock, poison=self.poison
        )

    def lease(self, gpu, chunk):
        """Let it lease until it has this chunk; what else it leased is given back."""
        while (work := gpu.lease()).chunk != chunk:
            gpu.in_flight.mark_computed()
            gpu.settler.end(work, Cause.RELEASED, "test")
        return work

    def settlements(self):
        chunks = [Chunk(0, 4), Chunk(4, 8), Chunk(4, 6), Chunk(6, 8), Chunk(6, 7), Chunk(7, 8)]
        return list(filter(None, map(self.ledger.settlement, chunks)))


def test_a_poison_item_is_split_off_until_it_is_alone():
    """One proven GPU worker is enough: everything else is committed, the killer quarantined with its reason."""
    world = World(6)

    world.gpu().work_on()

    (poison,) = audit(world.plan, world.settlements()).quarantined
    assert (poison.range, poison.cause) == (Chunk(6, 7), "crashed")
    assert "died" in poison.detail
    assert audit(world.plan, world.settlements()).open == ()


def test_preempted_attempts_never_convict():
    """However often GPU workers are stopped or lost at a lone item, it is not to blame."""
    world = World()
    chunk = Chunk(0, 4)
    for number in range(20):
        gpu = world.gpu()
        world.lease(gpu, chunk)
        if number % 2:
            gpu.salvage()
        world.clock.pass_time(100)
    world.gpu().work_on()

    found = audit(world.plan, world.settlements())
    assert (found.quarantined, found.open) == ((), ())
    assert [tile.range for tile in found.committed] == [Chunk(0, 4), Chunk(4, 8)]


def test_a_gpu_worker_that_never_did_any_work_convicts_nothing():
    """A bad host or image crashes at everything; the chunk stays whole."""
    world = World()
    for _ in range(6):
        bad = world.gpu()
        world.lease(bad, Chunk(4, 8))
        bad.crash("bad host")

    assert world.settlements() == []


def test_a_crash_beside_other_chunks_convicts_none_of_them():
    """With two chunks at the compute process nobody knows whose fault it was; afterwards it takes one at a time."""
    world = World()
    gpu = world.gpu()
    gpu.items_done = 1
    works = [gpu.lease(), gpu.lease()]
    gpu.crash()

    ends = [world.ledger.ends(work.chunk, 1)[0] for work in works]
    assert not any(end.blames_items for end in ends)
    assert [gpu.lease() is not None for _ in works] == [True, True]
    assert len(gpu.uncomputed()) == 1


def test_a_crash_after_a_part_does_not_convict():
    """The chunk got smaller: what is left of it begins somewhere else."""
    world = World()
    for _ in range(3):
        gpu = world.gpu()
        work = world.lease(gpu, Chunk(4, 8))
        gpu.compute(work)
        gpu.crash()

    assert world.settlements() == []
    left = world.lease(world.gpu(), Chunk(4, 8)).leased.left
    assert left == [Chunk(7, 8)]


def crash_twice(world, chunk, num_done):
    """A chunk with so many items in a part, and two crashes that are blamed on the rest."""
    first = world.gpu()
    work = world.lease(first, chunk)
    first.compute(work, num_done)
    first.settler.write_part(work)
    world.clock.pass_time(100)
    for _ in range(2):
        proven = world.gpu()
        proven.items_done = 1
        work = world.lease(proven, chunk)
        proven.compute(work, chunk.num_items)
    return world.gpu()


def test_two_convictions_halve_what_is_left_not_the_chunk():
    """Parts of earlier attempts are committed by the same write; each half inherits all blamed crashes but the last."""
    world = World(6)
    chunk = Chunk(4, 8)
    following = crash_twice(world, chunk, num_done=1)

    list(following.finder.sweep())

    committed, *opened = world.ledger.settlement(chunk).tiles
    assert committed.range == Chunk(4, 5)
    assert opened == [Open(range=Chunk(5, 6), crashes=1), Open(range=Chunk(6, 8), crashes=1)]


def test_a_lone_item_that_is_left_of_a_chunk_is_quarantined():
    """What counts is what is left, not how long the chunk was."""
    world = World(7)
    chunk = Chunk(4, 8)
    following = crash_twice(world, chunk, num_done=3)

    list(following.finder.sweep())

    committed, quarantined = world.ledger.settlement(chunk).tiles
    assert committed.range == Chunk(4, 7)
    assert isinstance(quarantined, Quarantined)
    assert (quarantined.range, quarantined.cause, quarantined.attempts) == (Chunk(7, 8), "crashed", 3)
