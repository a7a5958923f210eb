"""The items table: written in order over several files, read in ranges, and trusted only as it was written."""

import pytest

from gpu_jobs.errors import AuditError, RefusedError
from gpu_jobs.ledger import items
from gpu_jobs.ledger.items import ItemsReader, write_items
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.testing import MemoryStore, a_plan


def rows(*ids):
    return [{"item": each, "weight": float(number)} for number, each in enumerate(ids)]


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def written(store, monkeypatch):
    """Seven items in files of three."""
    monkeypatch.setattr(items, "ITEMS_PER_FILE", 3)
    return write_items(store, "nonce", rows(*"abcdefg"))


def reader(store, written):
    return ItemsReader(store, a_plan(num_items=7, items=written.files))


def test_files_tile_the_items_and_weights_are_in_their_order(written):
    assert [file.range for file in written.files] == [Chunk(0, 3), Chunk(3, 6), Chunk(6, 7)]
    assert written.weights == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


@pytest.mark.parametrize("wanted", [Chunk(start, stop) for start in range(7) for stop in range(start + 1, 8)], ids=str)
def test_every_range_is_read_as_if_there_were_one_file(store, written, wanted):
    found = list(reader(store, written).read(wanted))

    assert found == rows(*"abcdefg")[wanted.start : wanted.stop]


def test_a_file_is_fetched_once_for_neighbouring_ranges(store, written):
    reading = reader(store, written)
    store.calls.clear()

    for start in range(6):
        list(reading.read(Chunk(start, start + 1)))

    assert store.calls["get"] == 2


def test_an_id_that_occurs_twice_is_refused_also_over_two_files(store, monkeypatch):
    monkeypatch.setattr(items, "ITEMS_PER_FILE", 2)

    with pytest.raises(RefusedError, match="'a'"):
        write_items(store, "nonce", rows("a", "b", "a"))


@pytest.mark.parametrize("body", [None, b"something else"])
def test_a_file_that_is_not_what_the_plan_recorded_is_not_read(store, written, body):
    key = written.files[1].key
    store.delete(key)
    if body:
        store.create(key, body)

    with pytest.raises(AuditError, match=key):
        list(reader(store, written).read(Chunk(2, 4)))
