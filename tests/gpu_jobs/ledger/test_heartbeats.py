"""Heartbeats that are read again and again: what is fetched, and what a listing tells alone."""

from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from gpu_jobs.ledger import keys
from gpu_jobs.ledger.heartbeats import HeartbeatReader
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Heartbeat
from gpu_jobs.testing import FakeClock, MemoryStore

BEAT = Heartbeat(worker_id="one", order="ff-1", slot=3, host="test", status="working")


@pytest.fixture
def store():
    return MemoryStore(clock=FakeClock())


def leases(count):
    return tuple(Chunk(1000 * number, 1000 * number + 7).id for number in range(count))


def reads(store, act):
    before = store.calls["get"]
    found = act()
    return found, store.calls["get"] - before


def test_only_what_has_changed_is_fetched_again(store):
    """Even if the store's clock stood still between two heartbeats."""
    ledger = Ledger(store)
    ledger.beat(BEAT)
    ledger.beat(replace(BEAT, worker_id="two"))
    reader = HeartbeatReader(ledger)

    assert reads(store, reader.read) == (ledger.heartbeats(), 2)
    assert reads(store, reader.read)[1] == 0

    ledger.beat(replace(BEAT, items_done=1))
    found, num_reads = reads(store, reader.read)
    assert ([beat.items_done for beat, _ in found], num_reads) == ([1, 0], 1)


def test_who_is_over_is_never_fetched_again(store):
    """Not even if something is written over it, which nobody does."""
    ledger = Ledger(store)
    reader = HeartbeatReader(ledger)
    ledger.beat(replace(BEAT, status="over"))
    reader.read()
    ledger.beat(replace(BEAT, status="over", items_done=1))

    assert reads(store, reader.read)[1] == 0


@pytest.mark.parametrize("count", [0, 1, 60])
def test_a_listing_tells_who_holds_what(store, count):
    """Without a read."""
    beat = replace(BEAT, leases=leases(count), batch_size=8, facts={"device": "NVIDIA L4"})
    stamp = Ledger(store).beat(beat)

    (worker,), num_reads = reads(store, HeartbeatReader(Ledger(store)).workers)

    assert (worker.worker_id, worker.order, worker.slot, worker.status) == ("one", "ff-1", 3, "working")
    assert (worker.leases, worker.stored_at) == (beat.leases, stamp)
    assert (worker.device, worker.batch_size, num_reads) == ("NVIDIA L4", 8, 0)


@pytest.mark.parametrize(
    "changes",
    [{"leases": leases(1000)}, {"batch_size": 8, "facts": {"device": "é"}}],
    ids=["many leases", "odd device"],
)
def test_what_does_not_fit_into_a_listing_is_read_once(store, changes):
    """The body has all; so it does for heartbeats of before there were summaries."""
    beat = replace(BEAT, **changes)
    Ledger(store).beat(beat)
    store.put(keys.worker("old"), TypeAdapter(Heartbeat).dump_json(replace(beat, worker_id="old")))
    reader = HeartbeatReader(Ledger(store))

    found, num_reads = reads(store, reader.workers)

    assert [(each.worker_id, each.leases, each.batch_size) for each in found] == [
        ("old", beat.leases, beat.batch_size),
        ("one", beat.leases, beat.batch_size),
    ]
    assert num_reads == 2
    assert reads(store, reader.workers) == (found, 0)


def test_the_smallest_learned_batch_size_counts(store):
    """By device; whoever has learned nothing says nothing."""
    ledger = Ledger(store)
    for number, (size, device) in enumerate([(8, "a"), (4, "a"), (2, "b"), (0, "a")]):
        ledger.beat(replace(BEAT, worker_id=f"{number}", batch_size=size, facts={"device": device}))

    assert reads(store, HeartbeatReader(ledger).learned_batch_sizes) == ({"a": 4, "b": 2}, 0)
