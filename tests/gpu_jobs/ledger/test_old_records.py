"""Records on disk from before fields were renamed or added are read with the right values."""

import json
from datetime import UTC, date, datetime

import pytest

from gpu_jobs.jobs.costs import WorkerSeconds
from gpu_jobs.jobs.failures import AttemptEnd, Cause, Failure
from gpu_jobs.jobs.orders import JobOutcome, Policy
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.heartbeats import HeartbeatReader
from gpu_jobs.ledger.journal import CloseCause, Closed, Ended, Journal, Opened, Ordered
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Attempt, Committed, Heartbeat, ItemsFile, Open, Plan, Quarantined, Settlement
from gpu_jobs.testing import MemoryStore

HEARTBEAT = """{"boot":"0000000000a1","order":"ff-1-0002","slot":0,"host":"h:1","status":"over","reason":
"nothing is left to do","failure":null,"leases":[],"items_done":19,"items_failed":0,"items_per_s":0.103,"seconds":
{"starting":2.545,"model_load":15.819,"working":179.498,"idle":1.018,"infer":179.404},"gpu":"unavailable: no NVML",
"facts":{"device":"cpu"},"batch_size":64,"doing":"","checkpoints":0,"is_warm":false,"latencies":{"26":1,"20":18},
"version":1}"""
OPENED = """{"opener":"flow-run-1","policy":{"platforms":["local"],"gpus":[],"objective":"cheapest","max_workers":1,
"budget_usd":null,"deadline":null,"job_hours":12.0,"part_s":1.0,"heartbeat_s":5.0,"lease_timeout_s":30.0,"stall_s":900.0,
"max_crashes":2,"max_attempts":50,"max_idle_jobs":3,"max_wait_hours":6.0,"hedge_share":0.05,"is_canary_first":true,
"max_quarantined_share":0.5},"at":"2026-11-30T22:58:58.129412Z","kind":"opened","version":1}"""
ORDERED = """{"order":{"name":"ff-1-0002","campaign_uri":"gs://bucket/c","offer":{"platform":"local","gpu":"cpu",
"num_gpus":0,"region":"here","mode":"on-demand","usd_per_hour":0.0,"priced_on":"2026-11-24","price_source":
"this machine is already paid for","max_workers":64,"max_hours":null,"max_alive":null,"gpu_memory_gib":0.0,"speed":1.0,
"cold_start_p50_s":0.0,"cold_start_p90_s":0.0,"granularity_s":1.0,"min_billed_s":0.0,"idle_s":0.0,"is_start_billed":true,
"preemptions_per_hour":0.0,"grace_s":10.0},"num_workers":1,"expires_at":"2026-12-01T10:58:58.130987Z","reserved_usd":0.0},
"opener":"flow-run-1","reason":"8 chunks are open","at":"2026-11-30T22:58:58.130987Z","kind":"ordered","version":1}"""
ENDED = """{"order":"ff-1-0002","reason":"succeeded","items_done":19,"spent_usd":0.5,"at":"2026-11-30T23:02:20Z",
"detail":"the last lines","failure":null,"checkpoints":3,"kind":"ended","version":1}"""
CLOSED = """{"reason":"every item is settled","opener":"flow-run-1","at":"2026-11-30T23:02:20Z","kind":"closed",
"version":1}"""
PLAN = """{"workload":"noop","params":{"delay_s":0.5},"dataset":"in","dataset_digest":"d","sources":
"items/n/sources.parquet","items":[{"range":[0,7],"key":"items/n/part-00000.parquet","sha256":"s"}],"num_items":7,
"total_weight":7.0,"cuts":[0,3,7],"cut_reason":"two chunks","versions":{"fanfold":"0"},"created_at":
"2026-11-30T22:58:58Z","version":1}"""
ATTEMPT = """{"chunk":[0,3],"number":2,"boot":"0000000000a1","follows":"its heartbeat is old","version":1}"""
ATTEMPT_END = """{"cause":"crashed","detail":"signal 9","advanced":false,"vouched":true,"version":1}"""
SETTLEMENT = """{"chunk":[0,7],"attempt":2,"boot":"0000000000a1","tiles":[
{"range":[0,3],"part":"p","sha256":"s","num_failed":1,"kind":"committed"},
{"range":[3,4],"cause":"crashed","detail":"signal 9","attempts":2,"kind":"quarantined"},
{"range":[4,7],"crashes":1,"kind":"open"}],"version":1}"""

AT = datetime(2026, 11, 30, 23, 2, 20, tzinfo=UTC)
CHUNK = Chunk(0, 3)


def changed(record, **fields):
    return json.dumps({**json.loads(record), **fields})


def stored(key, record):
    store = MemoryStore()
    store.create(key, record.encode())
    return store


def journal_entry(record):
    (entry,) = Journal(stored(keys.journal(1), record)).read().entries
    return entry


def heartbeat(record):
    """The only heartbeat, read by its key and in a listing without summaries, as before."""
    ledger = Ledger(stored(keys.worker("0000000000a1"), record))
    found = ledger.heartbeat("0000000000a1")
    ((listed, _),) = HeartbeatReader(ledger).read()
    (worker,) = HeartbeatReader(ledger).workers()
    assert listed == found
    assert (worker.worker_id, worker.leases, worker.status) == (found.worker_id, found.leases, found.status)
    return found


def old_heartbeat(**fields):
    values = {
        "worker_id": "0000000000a1",
        "order": "ff-1-0002",
        "slot": 0,
        "host": "h:1",
        "status": "over",
        "reason": "nothing is left to do",
        "items_done": 19,
        "items_per_s": 0.103,
        "seconds": WorkerSeconds(starting=2.545, model_load=15.819, working=179.498, idle=1.018, infer=179.404),
        "facts": {"device": "cpu"},
        "batch_size": 64,
        "latencies": {26: 1, 20: 18},
        "version": 1,
    }
    return Heartbeat(**{**values, **fields})


KILLED = {"status": "working", "reason": "", "leases": ("000000000015-000000000018", "000000000008-000000000010")}
STOPPED = {"reason": "stopped by SIGTERM", "items_done": 2, "checkpoints": 6}


@pytest.mark.parametrize("fields", [{}, KILLED, STOPPED], ids=["over", "killed", "stopped"])
def test_a_heartbeat(fields):
    """`boot` is the worker_id; words on GPU use are no measurement."""
    found = heartbeat(changed(HEARTBEAT, **fields))

    assert found == old_heartbeat(**fields)
    assert found.gpu_use is None
    assert found.progress_marks == 0
    assert found.failure is None


def test_an_opening():
    """`opener` is the owner."""
    policy = Policy(max_workers=1, part_s=1.0, is_canary_first=True)
    at = datetime(2026, 11, 30, 22, 58, 58, 129412, tzinfo=UTC)

    assert journal_entry(OPENED) == Opened(owner="flow-run-1", policy=policy, at=at)


def test_an_order():
    """With its offer's price and billing rules."""
    at = datetime(2026, 11, 30, 22, 58, 58, 130987, tzinfo=UTC)

    found = journal_entry(ORDERED)

    assert isinstance(found, Ordered)
    assert (found.owner, found.reason, found.at) == ("flow-run-1", "8 chunks are open", at)
    assert (found.order.name, found.order.campaign_uri) == ("ff-1-0002", "gs://bucket/c")
    assert found.order.expires_at == at.replace(day=1, month=12, hour=10)
    offer = found.order.offer
    assert (offer.platform, offer.gpu, offer.num_gpus, offer.region) == ("local", "cpu", 0, "here")
    assert (offer.priced_on, offer.max_workers, offer.grace_s) == (date(2026, 11, 24), 64, 10.0)


@pytest.mark.parametrize(
    ("reason", "failure", "outcome"),
    [
        ("succeeded", None, JobOutcome.SUCCEEDED),
        ("stopped: interrupted by TerminationSignal", None, JobOutcome.SUCCEEDED),
        ("not to be found on its platform", Failure.LOST, JobOutcome.FAILED),
    ],
)
def test_the_end_of_a_gpu_job(reason, failure, outcome):
    """It has no outcome of its own, and its words decide nothing: it failed if it carries a failure."""
    assert journal_entry(changed(ENDED, reason=reason, failure=failure)) == Ended(
        order="ff-1-0002",
        reason=reason,
        items_done=19,
        spent_usd=0.5,
        at=AT,
        detail="the last lines",
        outcome=outcome,
        failure=failure,
        checkpoints=3,
        version=1,
    )


@pytest.mark.parametrize("reason", ["every item is settled", "interrupted by TerminationSignal"])
def test_a_closing(reason):
    """`opener` is the owner, and the cause is unknown, whatever the words are."""
    expected = Closed(reason=reason, owner="flow-run-1", at=AT, cause=CloseCause.UNKNOWN, version=1)

    assert journal_entry(changed(CLOSED, reason=reason)) == expected


def test_a_plan():
    """`cuts` are the chunk boundaries, `cut_reason` is the reason for them."""
    assert Ledger(stored(keys.PLAN, PLAN)).plan() == Plan(
        workload="noop",
        params={"delay_s": 0.5},
        dataset="in",
        dataset_digest="d",
        sources="items/n/sources.parquet",
        items=(ItemsFile(range=Chunk(0, 7), key="items/n/part-00000.parquet", sha256="s"),),
        num_items=7,
        total_weight=7.0,
        chunk_boundaries=(0, 3, 7),
        chunk_reason="two chunks",
        versions={"fanfold": "0"},
        created_at=datetime(2026, 11, 30, 22, 58, 58, tzinfo=UTC),
    )


def test_an_attempt_and_its_end():
    """`boot` is the worker_id; `vouched` is trusted, so that an old crash still counts."""
    attempt = Ledger(stored(keys.attempt(CHUNK.id, 2), ATTEMPT)).attempt(CHUNK, 2)
    (end,) = Ledger(stored(keys.attempt_end(CHUNK.id, 2), ATTEMPT_END)).ends(CHUNK, 2)

    assert attempt == Attempt(chunk=CHUNK, number=2, worker_id="0000000000a1", follows="its heartbeat is old")
    assert end == AttemptEnd(cause=Cause.CRASHED, detail="signal 9", trusted=True)
    assert end.blames_items


def test_a_settlement():
    """With tiles of all three kinds."""
    whole = Chunk(0, 7)
    tiles = (
        Committed(range=CHUNK, part="p", sha256="s", num_failed=1),
        Quarantined(range=Chunk(3, 4), cause="crashed", detail="signal 9", attempts=2),
        Open(range=Chunk(4, 7), crashes=1),
    )

    found = Ledger(stored(keys.settled(whole.id), SETTLEMENT)).settlement(whole)

    assert found == Settlement(chunk=whole, attempt=2, worker_id="0000000000a1", tiles=tiles)
