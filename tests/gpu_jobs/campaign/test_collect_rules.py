"""Rule 3: done is computed. What does not add up is refused, and nothing of it is published."""

import json

import polars as pl
import pytest

from gpu_jobs.campaign.collect import audit, collect
from gpu_jobs.campaign.manifest import newest_manifest, read_output
from gpu_jobs.errors import AuditError, ItemError
from gpu_jobs.ledger import keys, rows
from gpu_jobs.ledger.ledger import Ledger, sha256
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Attempt, Committed, Open, Quarantined, Settlement
from gpu_jobs.testing import FakeClock, FakeGpuWorker, MemoryStore, a_plan, a_policy, noop_rows, plan_campaign

CHUNK = Chunk(2, 4)
NUM_ITEMS = 6


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    return MemoryStore(clock=clock)


@pytest.fixture
def plan(store):
    return plan_campaign(store, num_items=NUM_ITEMS)


@pytest.fixture
def gpu(store, plan, clock):
    return FakeGpuWorker(store, plan, a_policy(), worker_id="one", monotonic=clock)


@pytest.fixture
def settled(store, plan, gpu):
    """A campaign with every item committed."""
    gpu.work_on()
    return Ledger(store).settlement(CHUNK)


def rewrite(store, key, body):
    store.delete(key)
    store.create(key, body)


def change_settlement(store, change):
    """Damage the stored settlement of the chunk in a way that our code cannot write."""
    key = keys.settled(CHUNK.id)
    fields = json.loads(store.get(key))
    change(fields["tiles"])
    rewrite(store, key, json.dumps(fields).encode())


def change_part(store, settled, change):
    """Rewrite the chunk's part, with a settlement that cites the new bytes."""
    (tile,) = settled.tiles
    body = rows.encode(change(rows.decode(store.get(tile.part))))
    rewrite(store, tile.part, body)
    change_settlement(store, lambda tiles: tiles[0].update(sha256=sha256(body)))


def assert_refused(store, plan, match):
    with pytest.raises(AuditError, match=match):
        collect(store, plan)
    assert list(store.list(keys.MANIFESTS)) == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda tiles: tiles[0].update(range=[2, 3]), r"gap \[3, 4\)"),
        (lambda tiles: tiles.clear(), r"gap \[2, 4\)"),
        (lambda tiles: tiles.append(dict(tiles[0], range=[3, 4])), r"overlap \[3, 4\)"),
        (lambda tiles: tiles[0].update(range=[2, 5]), r"overlap \[4, 5\)"),
        (lambda tiles: tiles[0].update(range=[1, 4]), r"overlap \[1, 2\)"),
    ],
)
def test_tiles_that_do_not_tile_are_refused(store, plan, settled, change, match):
    """A gap, an overlap, or a tile that sticks out of its chunk."""
    change_settlement(store, change)

    assert_refused(store, plan, match)


def test_the_audit_itself_finds_what_does_not_tile_the_dataset():
    """Even settlements that are each in order are refused if together they are not the dataset."""
    plan = a_plan(num_items=NUM_ITEMS, chunk_boundaries=(0, 2, 4))

    with pytest.raises(AuditError, match=r"gap \[4, 6\)"):
        audit(plan, [])


def test_other_bytes_than_the_settlement_recorded_are_refused(store, plan, settled):
    """A part that was changed after its settlement."""
    rewrite(store, settled.tiles[0].part, noop_rows(CHUNK) + b"\0")

    assert_refused(store, plan, "another checksum")


def test_a_missing_part_is_refused(store, plan, settled):
    """A part that was deleted after its settlement."""
    store.delete(settled.tiles[0].part)

    assert_refused(store, plan, "is gone")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda frame: frame.with_columns(item=pl.lit("item-000000")), "item 2: the plan says 'item-000002'"),
        (lambda frame: frame.head(1), "item 3: .* its part says None"),
        (lambda frame: pl.concat([frame, frame.with_columns(item_index=pl.lit(9, pl.Int64))]), "item 9"),
        (lambda frame: frame.reverse(), "not in item order"),
        (lambda frame: pl.concat([frame, frame.tail(1).with_columns(item=pl.lit("x"))]), "two ids"),
        (lambda frame: pl.concat([frame, frame.tail(1).with_columns(outcome=pl.lit("empty"))]), "two kinds"),
        (lambda frame: pl.concat([frame, *[frame.tail(1).with_columns(outcome=pl.lit("error"))] * 2]), "two errors"),
    ],
    ids=["wrong id", "item missing", "item too many", "wrong order", "two ids", "two outcomes", "two errors"],
)
def test_rows_that_do_not_match_the_items_are_refused(store, plan, settled, change, match):
    """Every item of a tile, with the id that the plan gave it, once, in order."""
    change_part(store, settled, change)

    assert_refused(store, plan, match)


def test_a_settlement_that_does_not_tile_its_chunk_cannot_be_written():
    """Our own code refuses before anything is stored."""
    tile = Committed(range=Chunk(2, 3), part="parts/x", sha256="0")

    with pytest.raises(AuditError, match="gap"):
        Settlement(chunk=CHUNK, attempt=1, worker_id="one", tiles=(tile,))
    with pytest.raises(AuditError, match="leaves all of it open"):
        Settlement(chunk=CHUNK, attempt=1, worker_id="one", tiles=(Open(range=CHUNK),))


def test_collecting_again_publishes_nothing_new(store, plan, settled):
    """The second collect returns the first one's manifest."""
    first = collect(store, plan)
    before = [entry.key for entry in store.list("")]

    assert collect(store, plan) == first
    assert [entry.key for entry in store.list("")] == before


def test_two_collectors_agree_on_one_manifest(store, plan, settled):
    """Whoever is second to publish takes the first one's manifest."""
    inside = []

    def collect_in_between(method, key):
        if method == "create" and key.startswith(keys.MANIFESTS):
            store.before = lambda _method, _key: None
            inside.append(collect(store, plan))

    store.before = collect_in_between

    assert [collect(store, plan)] == inside
    assert len(list(store.list(keys.MANIFESTS))) == 1


def test_a_partial_result_says_that_it_is_one(store, plan, gpu):
    """It counts what is open, and the complete one comes beside it later."""
    gpu.work_through(gpu.lease())
    partial = collect(store, plan)
    gpu.work_on()
    complete = collect(store, plan)

    assert (partial.is_complete, partial.num_committed, partial.num_open) == (False, 2, 4)
    assert (complete.is_complete, complete.num_committed, complete.num_open) == (True, 6, 0)
    assert newest_manifest(store) == complete


def test_an_item_of_which_only_a_part_can_be_used_has_rows_and_an_error(store, plan, gpu):
    """Its rows are published, and the quarantine table says what is missing; two errors would be a mistake."""
    frame = rows.decode(noop_rows(CHUNK))
    unread = ItemError("its end is unreadable", rows=frame.head(1).select("value").to_dicts())
    partly = pl.DataFrame(rows.item_rows(2, "item-000002", unread), schema=frame.schema)
    ledger = Ledger(store)
    attempt = Attempt(chunk=CHUNK, number=1, worker_id="two", follows="")
    body = rows.encode(pl.concat([partly, frame.tail(1)]))
    part = ledger.write_part(attempt, CHUNK, body, len(rows.failed_items(body)))
    ledger.settle(Settlement(chunk=CHUNK, attempt=1, worker_id="one", tiles=(part,)))
    gpu.work_on()

    manifest = collect(store, plan)

    assert (manifest.num_committed, manifest.num_quarantined) == (5, 1)
    assert read_output(store, manifest.quarantine)["detail"].to_list() == ["its end is unreadable"]
    (output,) = manifest.outputs
    assert read_output(store, output)["item_index"].to_list() == [0, 1, 2, 3, 4, 5]


def test_items_without_rows_are_accounted_for(store, plan, gpu):
    """Quarantined items and error rows are in the quarantine table with their reasons, and empty items are done."""
    ledger = Ledger(store)
    attempt = Attempt(chunk=CHUNK, number=1, worker_id="two", follows="")
    frame = rows.decode(noop_rows(Chunk(2, 3)))
    error = frame.with_columns(outcome=pl.lit("error"), error=pl.lit("unreadable"), value=None).cast(frame.schema)
    part = ledger.write_part(attempt, Chunk(2, 3), rows.encode(error))
    poison = Quarantined(range=Chunk(3, 4), cause="crashed", detail="signal 11", attempts=2)
    ledger.settle(Settlement(chunk=CHUNK, attempt=1, worker_id="one", tiles=(part, poison)))
    first = Chunk(0, 2)
    empty = rows.decode(noop_rows(first)).with_columns(outcome=pl.lit("empty"), value=None).cast(frame.schema)
    part = Committed(range=first, part="parts/by-hand.0001.0.arrows", sha256=sha256(rows.encode(empty)))
    store.create(part.part, rows.encode(empty))
    ledger.settle(Settlement(chunk=first, attempt=1, worker_id="one", tiles=(part,)))
    gpu.work_on()

    manifest = collect(store, plan)

    assert (manifest.num_committed, manifest.num_quarantined, manifest.num_open) == (4, 2, 0)
    assert read_output(store, manifest.quarantine).rows() == [
        (2, "item-000002", "error", "unreadable", 1),
        (3, "item-000003", "crashed", "signal 11", 2),
    ]
    assert [row for file in manifest.outputs for row in read_output(store, file)["item_index"]] == [4, 5]
