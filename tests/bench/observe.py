"""What it costs to look at a campaign: calls of the store and seconds, with many dead GPU workers and settled chunks.

`python -m tests.bench.observe [chunks]`. A turn of the loop is measured on a store in memory that takes two
milliseconds for each call; status and the names of campaigns on a local store in a temporary folder.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.loop import Loop
from gpu_jobs.jobs.names import order_prefix
from gpu_jobs.jobs.orders import Order, Policy
from gpu_jobs.ledger.journal import Ended, Journal, JournalEntry, Opened, Ordered
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.ranges import Chunk, from_boundaries
from gpu_jobs.ledger.records import Attempt, Committed, Heartbeat, Open, Plan, Quarantined, Settlement
from gpu_jobs.platforms.event_loop import Background
from gpu_jobs.store import campaign_names
from gpu_jobs.store.base import NO_SUMMARY, Store, Summary
from gpu_jobs.store.local import LocalStore, _encode
from gpu_jobs.testing import FakePlatform, MemoryStore, a_plan, an_order
from tests.bench.rows import report

NUM_DEAD, NUM_ALIVE, NUM_ENTRIES = 2000, 20, 2000
CALL_S = 0.002
NUM_CHUNKS = 180_000
MAX_LISTINGS, MAX_READS, MAX_STATUS_S, MAX_NAMES_S = 5, 50, 3.0, 0.05
POLICY = Policy(platforms=("fake",), max_workers=NUM_ALIVE)


class CountingStore(MemoryStore):
    """Counts calls of `list`, where the store in memory counts pages."""

    def __init__(self) -> None:
        super().__init__()
        self.num_listings = 0

    def list(self, prefix: str, after: str = "") -> Iterator:
        self.num_listings += 1
        return super().list(prefix, after)


class QuickStore(LocalStore):
    """Writes the same files as any local store, but right to their names, since nobody else is there."""

    def create(self, key: str, body: bytes, summary: Summary = NO_SUMMARY) -> bool:
        path = Path(self._path(key))
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
        path.write_bytes(_encode(body, summary))
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What something has cost; a listing may have several pages."""

    listings: int
    pages: int
    reads: int
    seconds: float


class OldCampaign:
    """A campaign that has ordered GPU jobs for long: nearly all of its GPU workers were killed, and some live."""

    def __init__(self, store: CountingStore) -> None:
        self.store = store
        self.plan = a_plan(num_items=4 * NUM_DEAD)
        self.platform = FakePlatform()
        self._ledger = Ledger(store)
        entries = list(self._journal())
        for seq, entry in enumerate(entries):
            assert Journal(store).append(entry, upon=_AnyState(seq))  # type: ignore[arg-type]
        for worker in range(NUM_DEAD):
            ended = entries[1 + worker % (NUM_ENTRIES // 2 - 1) * 2]
            assert isinstance(ended, Ordered)
            self._beat(f"dead-{worker}", ended.order, worker % 2)
        live = entries[-1]
        assert isinstance(live, Ordered)
        self._live = live.order
        asyncio.run(self.platform.start(self._live))
        self.platform.run(self._live.name)
        for chunk in from_boundaries(self.plan.chunk_boundaries)[:NUM_DEAD]:
            attempt = Attempt(chunk=chunk, number=1, worker_id="dead-0", follows="")
            self._ledger.begin(attempt)
            self._ledger.settle(_settlement(chunk))
        self.live_workers_beat()

    def live_workers_beat(self) -> None:
        for slot in range(NUM_ALIVE):
            self._beat(f"live-{slot}", self._live, slot)

    def turns(self, background: Background) -> Callable[[], object]:
        """A loop that has nothing to order; each call is a turn, the first with the opening."""
        platforms = [self.platform]
        loop = Loop(self._ledger, self.plan, POLICY, platforms, owner="bench", background=background)
        begin = [loop.open]

        def turn() -> object:
            while begin:
                begin.pop()()
            return loop.turn()

        return turn

    def _journal(self) -> Iterator[JournalEntry]:
        at = datetime.now(UTC) - timedelta(hours=10)
        yield Opened(owner="before", policy=POLICY, at=at)
        for number in range(NUM_ENTRIES // 2):
            order = self._order(2 + 2 * number, NUM_ALIVE if number == NUM_ENTRIES // 2 - 1 else 2)
            yield Ordered(order=order, owner="before", reason="the plan", at=at)
            if number < NUM_ENTRIES // 2 - 1:
                yield Ended(order=order.name, reason="succeeded", items_done=20, spent_usd=0.1, at=at)

    def _order(self, seq: int, num_workers: int) -> Order:
        name = f"{order_prefix(self.store.uri)}-{seq:04d}"
        return an_order(name=name, campaign_uri=self.store.uri, num_workers=num_workers)

    def _beat(self, worker_id: str, order: Order, slot: int) -> None:
        beat = Heartbeat(
            worker_id=worker_id, order=order.name, slot=slot, host="bench", status="working", items_done=10
        )
        self._ledger.beat(beat)


class _AnyState:
    """Stands for the journal's state where a whole journal is written at once."""

    def __init__(self, num_entries: int) -> None:
        self.next_seq = num_entries + 1

    def refusal(self, _entry: JournalEntry) -> None:
        return None


def cost_of(store: CountingStore, act: Callable[[], object]) -> Cost:
    calls, listings, began = store.calls.copy(), store.num_listings, time.perf_counter()
    act()
    return Cost(
        listings=store.num_listings - listings,
        pages=store.calls["list"] - calls["list"],
        reads=store.calls["get"] - calls["get"],
        seconds=time.perf_counter() - began,
    )


def measure_turns() -> None:
    store = CountingStore()
    campaign = OldCampaign(store)
    store.before = lambda _method, _key: time.sleep(CALL_S)
    with Background() as background:
        turn = campaign.turns(background)
        first = cost_of(store, turn)
        campaign.live_workers_beat()
        time.sleep(max(1.0, 11 * first.seconds / 10))  # until the next survey is due
        second = cost_of(store, turn)
    for name, cost, is_target in (("first", first, False), ("second", second, True)):
        row = f"{NUM_DEAD} dead GPU workers, {NUM_ENTRIES} journal entries: {name} turn"
        report("observe", f"{row}, listings", cost.listings, "calls", at_most=MAX_LISTINGS if is_target else None)
        report("observe", f"{row}, pages of listings", cost.pages, "calls")
        report("observe", f"{row}, reads", cost.reads, "calls", at_most=MAX_READS if is_target else None)
        report("observe", f"{row}, {CALL_S * 1000:.0f} ms a call", cost.seconds, "s")


def settled_campaign(store: Store, num_chunks: int) -> Plan:
    """All chunks are settled; one in a hundred has a quarantined item, one in a hundred was halved."""
    plan = a_plan(num_items=2 * num_chunks)
    ledger = Ledger(store)
    ledger.create_plan(plan)
    for number, chunk in enumerate(from_boundaries(plan.chunk_boundaries)):
        halves = [Chunk(chunk.start, chunk.start + 1), Chunk(chunk.start + 1, chunk.stop)]
        if number % 100 == 1:
            bad = Quarantined(range=halves[1], cause="crashed", detail="", attempts=2)
            ledger.settle(_settlement(chunk, (_committed(halves[0]), bad)))
        elif number % 100 == 2:
            ledger.settle(_settlement(chunk, (_committed(halves[0]), Open(range=halves[1]))))
            ledger.settle(_settlement(halves[1]))
        else:
            ledger.settle(_settlement(chunk))
    return plan


def measure_local(num_chunks: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plan = settled_campaign(QuickStore(Path(folder) / "campaign"), num_chunks)
        for number in range(2):
            began, began_cpu = time.perf_counter(), time.process_time()
            progress = Campaign(LocalStore(Path(folder) / "campaign"), plan).status()
            took_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
            assert (progress.items_left, progress.quarantined_items) == (0, len(range(1, num_chunks, 100)))
            again = ", again" if number else ""
            report("observe", f"status with {num_chunks} settled chunks{again}", took_s, "s", at_most=MAX_STATUS_S)
            report("observe", f"status with {num_chunks} settled chunks{again}, of one processor", cpu_s, "s")
        began = time.perf_counter()
        assert list(campaign_names(LocalStore(Path(folder)))) == ["campaign"]
        took_s = time.perf_counter() - began
        row = f"names of campaigns, one with {num_chunks} files"
        report("observe", row, took_s, "s", at_most=MAX_NAMES_S)


def _committed(covered: Chunk) -> Committed:
    return Committed(range=covered, part=f"parts/{covered.id}.0001.{covered.id}.arrows", sha256="0" * 64)


def _settlement(chunk: Chunk, tiles: tuple = ()) -> Settlement:
    return Settlement(chunk=chunk, attempt=1, worker_id="dead-0", tiles=tiles or (_committed(chunk),))


def main(num_chunks: int) -> None:
    measure_turns()
    measure_local(num_chunks)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else NUM_CHUNKS)
