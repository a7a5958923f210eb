"""Rule 4: a lease is only advice. Rule 5: GPU workers find work alone, and listing it is cheap."""

from collections import Counter
from random import Random
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_jobs.jobs.failures import AttemptEnd, Cause
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.open_chunks import WINDOW_CHUNKS, Survey
from gpu_jobs.ledger.ranges import Chunk, from_boundaries
from gpu_jobs.ledger.records import Attempt, Committed, Settlement
from gpu_jobs.testing import FakeClock, FakeGpuWorker, MemoryStore, a_plan, a_policy, plan_campaign
from gpu_jobs.worker.leaser import Leaser
from gpu_jobs.worker.leasing import StoreClock

WINDOWS = st.integers(0, 2)
POLICY = a_policy(heartbeat_s=5.0, lease_timeout_s=30.0)


class World:
    """One chunk, one clock, and GPU workers whose machines have clocks of their own."""

    def __init__(self, num_items=2, skews=(0.0, 0.0)):
        self.clock = FakeClock()
        self.store = MemoryStore(clock=self.clock)
        self.plan = plan_campaign(self.store, num_items=num_items)
        self.holder, self.other = (self.gpu(f"gpu-{number}", skew) for number, skew in enumerate(skews))

    def gpu(self, worker_id, skew_s=0.0):
        return FakeGpuWorker(
            self.store, self.plan, POLICY, worker_id=worker_id, monotonic=lambda: self.clock() + skew_s
        )

    def other_leases(self, after_s):
        """What the other GPU worker can lease some time later; its own heartbeat is fresh."""
        self.clock.pass_time(after_s)
        self.other.beat()
        return self.other.lease()


@pytest.fixture
def world():
    return World()


@pytest.mark.parametrize(("silent_s", "is_taken"), [(0, False), (30, False), (31, True)])
def test_a_lease_dies_with_its_holders_heartbeat(world, silent_s, is_taken):
    """Fresh until the timeout, and then anybody's."""
    world.holder.lease()
    world.holder.beat()

    taken = world.other_leases(after_s=silent_s)

    assert (taken is not None) == is_taken
    if taken:
        assert (taken.leased.attempt.number, taken.leased.attempt.follows) == (2, "lost")
        assert world.other.ledger.ends(taken.chunk, 1)[0].cause is Cause.LOST


@pytest.mark.parametrize(("silent_s", "is_dying"), [(10, False), (11, True), (30, True), (31, False)])
def test_a_silent_holders_lease_is_seen_to_be_dying(world, silent_s, is_dying):
    """Until it is dead: whoever is idle waits for it."""
    world.holder.lease()
    world.holder.beat()

    world.other_leases(after_s=silent_s)

    assert world.other.finder.is_lease_dying == is_dying


@pytest.mark.parametrize("is_dying", [False, True])
def test_an_idle_gpu_worker_stays_while_a_lease_is_dying(world, is_dying):
    """Else another would have to start for that chunk; with nothing to wait for it leaves."""
    world.holder.lease()
    world.holder.beat()
    world.clock.pass_time(20 if is_dying else 1)
    world.other.beat()
    other, has_left = world.other, Event()
    leaser = Leaser(other.ledger, other.survey, other.finder, "gpu-1", in_flight=other.in_flight, wake=has_left.set)
    leaser.linger_s = 0.0

    leaser.start_once()

    assert has_left.wait(0.5) != is_dying
    leaser.stop()


def test_a_heartbeat_that_does_not_name_the_lease_does_not_keep_it(world):
    """A holder that lives and has dropped the chunk, whatever the reason, does not block it."""
    work = world.holder.lease()
    world.holder.in_flight.remove(work)
    for _ in range(3):
        world.clock.pass_time(POLICY.heartbeat_s)
        world.holder.beat()

    assert world.other_leases(after_s=0) is not None


def test_a_heartbeat_from_before_the_lease_cannot_name_it(world):
    """Between the lease and the next heartbeat the holder is believed."""
    world.clock.pass_time(POLICY.heartbeat_s)
    world.holder.lease()

    assert world.other_leases(after_s=POLICY.heartbeat_s) is None


def test_a_holder_without_any_heartbeat_is_judged_by_its_lease(world):
    """It may have begun a moment ago; later it is dead."""
    chunk = Chunk(0, 2)
    world.holder.ledger.begin(Attempt(chunk=chunk, number=1, worker_id="never-beat", follows=""))

    assert world.other_leases(after_s=30) is None
    assert world.other_leases(after_s=1) is not None


def test_the_lease_of_a_holder_that_said_goodbye_is_free_at_once(world):
    """A GPU worker whose last heartbeat says that it is over holds nothing."""
    world.holder.lease()
    world.holder.beat("over", "exit")

    assert world.other_leases(after_s=0) is not None


@settings(max_examples=60, deadline=None)
@given(
    skews=st.tuples(*[st.floats(-1e9, 1e9)] * 2),
    steps=st.lists(st.sampled_from([3.0, 7.0, 12.0, 29.0, 31.0]), max_size=6),
)
def test_no_machines_clock_matters(skews, steps):
    """However wrong and different the machines' clocks, only the store's stamps decide who is alive."""
    world, silent_s = World(skews=skews), 0.0
    world.holder.lease()
    world.holder.beat()

    for seconds in steps:
        taken = world.other_leases(after_s=seconds)
        silent_s += seconds
        assert (taken is not None) == (silent_s > POLICY.lease_timeout_s)
        if taken:
            return


def test_a_slow_sweep_does_not_take_live_leases_for_dead():
    """A sweep judges by what it has listed as of when it listed it, however long it takes."""
    world = World(num_items=40)
    held = {world.holder.lease().chunk for _ in range(10)}
    world.holder.beat()
    taken = set()

    for leased in world.other.finder.sweep():
        taken.add(leased.chunk)
        world.clock.pass_time(10)
        world.holder.beat()
        world.other.beat()

    assert taken == set(from_boundaries(world.plan.chunk_boundaries)) - held


def test_our_store_clock_never_runs_ahead():
    """Set by the reply to a heartbeat, it is late by that reply's way, so no lease looks older than it is."""
    clock = FakeClock(now_s=500.0)
    ours = StoreClock(clock)

    stamp = 9000.0
    clock.pass_time(2)  # the reply's way
    ours.set(stamp)
    clock.pass_time(10)

    assert ours.now() == stamp + 10


def settle_all_but(store, plan, left):
    """With bodies that nobody can read: a listing has to do."""
    for chunk in from_boundaries(plan.chunk_boundaries):
        if chunk not in left:
            store.create(keys.attempt(chunk.id, 1), b"?")
            store.create(keys.settled(chunk.id), b"?")


def calls_of(store, act):
    store.calls.clear()
    act()
    return store.calls.copy()


def test_resuming_a_huge_campaign_costs_about_two_listings_per_thousand_chunks():
    """30,000 chunks, three of them open: found without one call per settled chunk, then without listing the rest."""
    store, num_chunks = MemoryStore(), 30_000
    plan = a_plan(num_items=num_chunks, chunk_boundaries=tuple(range(num_chunks + 1)))
    left = [Chunk(7, 8), Chunk(15_500, 15_501), Chunk(29_999, 30_000)]
    settle_all_but(store, plan, left)
    gpu = FakeGpuWorker(store, plan, POLICY, worker_id="one", monotonic=FakeClock())
    found = []

    first = calls_of(store, lambda: found.extend(gpu.finder.sweep()))
    second = calls_of(store, lambda: found.extend(gpu.finder.sweep()))

    assert sorted(leased.chunk for leased in found) == left
    assert first["list"] <= 2 * num_chunks / WINDOW_CHUNKS + 2 * len(left)
    assert first["get"] == len(left)  # not settled since the listing?
    assert second["list"] <= 5 * len(left)  # settled, attempts and GPU workers of three windows
    assert second["get"] <= 2 * len(left)  # whose lease, and does it live?


def test_a_window_once_done_is_never_listed_again():
    """What is settled stays settled."""
    store = MemoryStore()
    plan = a_plan(num_items=4)
    settle_all_but(store, plan, [])
    survey = Survey(Ledger(store), plan.chunk_boundaries)
    survey.refresh_all()
    store.calls.clear()

    survey.refresh_all()

    assert survey.items_left == 0
    assert store.calls["list"] == 0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), done=st.sets(WINDOWS))
def test_one_listing_of_many_windows_tells_what_each_would(seed, done):
    """Neighbouring windows that are listed together know what each knows by itself, also around those that are done."""
    dice = Random(seed)
    is_settled = [dice.random() < 0.5 for _ in range(3 * WINDOW_CHUNKS)]
    store = MemoryStore()
    plan = a_plan(num_items=3 * WINDOW_CHUNKS, chunk_boundaries=tuple(range(3 * WINDOW_CHUNKS + 1)))
    left = [
        Chunk(item, item + 1) for item, each in enumerate(is_settled) if not (each or item // WINDOW_CHUNKS in done)
    ]
    settle_all_but(store, plan, left)
    together, apart = (Survey(Ledger(store), plan.chunk_boundaries) for _ in range(2))
    together.refresh_all()
    for window in apart.windows:
        apart.refresh(window)

    for survey in (together, apart):
        assert [found.chunk for window in survey.windows for found in window.open] == left
    together.refresh_all()
    assert [window.open for window in together.windows] == [window.open for window in apart.windows]


def test_gpu_workers_that_start_together_rarely_collide():
    """Eight at once over 2,000 chunks: few leases are lost to another, listings stay rare, nobody leaves early."""
    store, clock = MemoryStore(), FakeClock()
    plan = a_plan(num_items=2000, chunk_boundaries=tuple(range(2001)))
    gpus = [FakeGpuWorker(store, plan, POLICY, worker_id=f"gpu-{number}", monotonic=clock) for number in range(8)]
    store.calls.clear()
    done = Counter()

    at_work = list(gpus)
    while at_work:
        for gpu in list(at_work):
            work = gpu.lease()
            if work is None:
                at_work.remove(gpu)
                continue
            tile = Committed(range=work.chunk, part="parts/x", sha256="0")
            gpu.ledger.settle(Settlement(chunk=work.chunk, attempt=1, worker_id=gpu.worker_id, tiles=(tile,)))
            gpu.in_flight.remove(work)
            done[gpu.worker_id] += 1

    num_lost = store.calls["create"] - 2 * done.total()
    assert done.total() == 2000
    assert num_lost < 0.1 * done.total()
    assert store.calls["list"] < 0.2 * done.total()
    assert min(done.values()) > 200


def test_a_chunk_settled_since_the_listing_is_not_worked_on(world):
    """Lease, then check that it is not settled: a listing may be old by then."""
    sweep = world.other.finder.sweep()

    def settle_in_between(method, key):
        if (method, key) == ("create", keys.attempt(Chunk(0, 2).id, 1)):
            world.store.before = lambda _method, _key: None
            settle_all_but(world.store, world.plan, [])

    world.store.before = settle_in_between

    assert next(sweep, None) is None


def test_only_attempts_up_to_the_limit_are_begun(world):
    """A chunk that has had its attempts is left to the campaign's owner, who closes it."""
    chunk = Chunk(0, 2)
    for number in range(1, POLICY.max_attempts + 1):
        world.holder.ledger.begin(Attempt(chunk=chunk, number=number, worker_id="x", follows=""))
        world.holder.ledger.end(chunk, number, AttemptEnd(cause=Cause.STOPPED))

    assert world.other.lease() is None


def test_a_second_attempt_begins_beside_a_living_one_only_where_it_is_wanted():
    """Whoever settles first counts; the other's work is dropped, and its attempt is called lost by nobody."""
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    plan = plan_campaign(store, num_items=4, chunk_boundaries=(0, 4))
    slow, idle, third = (
        FakeGpuWorker(store, plan, POLICY, worker_id=worker_id, monotonic=clock)
        for worker_id in ("slow", "idle", "third")
    )
    held = slow.lease()
    slow.compute(held)
    slow.beat()
    before = idle.lease()
    idle.ledger.hedge(held.chunk, 1, "it is slow")

    second = idle.lease()
    idle.beat()
    idle.work_through(second)
    slow.work_through(held)

    assert before is None
    assert (second.leased.attempt.number, second.leased.attempt.follows) == (2, "hedge")
    assert third.lease() is None
    settlement = idle.ledger.settlement(Chunk(0, 4))
    assert (settlement.worker_id, settlement.attempt) == ("idle", 2)
    assert slow.settler.lost_races == 1
    assert idle.ledger.ends(Chunk(0, 4), 2) == []
