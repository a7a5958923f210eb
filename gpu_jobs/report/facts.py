"""What the store knows of a campaign, gathered once for its report."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.manifest import Manifest
from gpu_jobs.forecast.history import Outlook, kept_outlook, outcome
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.journal import Closed, JournalState, Opened
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Plan
from gpu_jobs.store import Store
from gpu_jobs.telemetry.snapshot import Snapshot
from gpu_jobs.telemetry.workers import GpuWorker

MAX_QUARANTINE_ROWS = 200
MAX_ATTEMPTS = 2000
"""That are drawn one by one; a campaign with more chunks shows sums."""
_READS_AT_ONCE = 16
_Key = tuple[Chunk, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """One attempt, by the store's clock."""

    chunk: Chunk
    number: int
    worker_id: str
    began_at: float
    ended_at: float | None
    """None: nothing tells that it has ended."""
    end: str
    """ "settled", a cause of failure, or "lost" if another attempt simply followed; "" while it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Items without rows: the first ones, and all of them counted by cause."""

    rows: list[dict[str, Any]]
    causes: list[tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the report says, but for the sample of results."""

    uri: str
    plan: Plan
    manifest: Manifest
    journal: JournalState
    wall_s: float
    """From each opening to its close, added up."""
    workers: list[GpuWorker]
    """In the order in which they began."""
    attempts: list[Attempted] | None
    """None: too many to draw."""
    quarantine: Quarantine
    outlook: Outlook | None
    """The forecast that was told first."""
    outcome: tuple[float, float] | None
    """Dollars and seconds that it has taken since then; None while items are open."""

    @property
    def spent_usd(self) -> float:
        return sum(end.spent_usd for end in self.journal.ended.values())

    @property
    def reserved_usd(self) -> float:
        return sum(order.reserved_usd for order in self.journal.live_orders)

    @property
    def items_per_s(self) -> float:
        settled = self.manifest.num_items - self.manifest.num_open
        return settled / self.wall_s if self.wall_s > 0 else 0.0


def gather(campaign: Campaign, snapshot: Snapshot, manifest: Manifest) -> Facts:
    """Take what a snapshot knows, and read the attempts and the quarantine of a campaign."""
    store, journal = campaign.store, snapshot.journal
    workers = sorted(snapshot.workers, key=lambda worker: (worker.began_at, worker.heartbeat.worker_id))
    settled_at = {}
    attempts = None
    if len(campaign.plan.chunk_boundaries) - 1 <= MAX_ATTEMPTS:
        settled_at = {Chunk.parse(keys.stem(entry.key)): entry.stored_at for entry in store.list(keys.SETTLED)}
        attempts = _attempts(campaign.ledger, settled_at)
    outlook = kept_outlook(campaign)
    last_seen_at = max((*settled_at.values(), *(worker.seen_at for worker in workers)), default=0.0)
    return Facts(
        uri=store.uri,
        plan=campaign.plan,
        manifest=manifest,
        journal=journal,
        wall_s=_wall_s(store, journal, last_seen_at),
        workers=workers,
        attempts=attempts,
        quarantine=_quarantine(store, manifest),
        outlook=outlook,
        outcome=outcome(snapshot, outlook) if outlook else None,
    )


def _wall_s(store: Store, journal: JournalState, last_seen_at: float) -> float:
    stamps = [entry.stored_at for entry in store.list(keys.JOURNAL)]
    total_s, opened_at = 0.0, None
    for entry, at in zip(journal.entries, stamps, strict=False):
        if isinstance(entry, Opened | Closed) and opened_at is not None:
            total_s, opened_at = total_s + at - opened_at, None
        if isinstance(entry, Opened):
            opened_at = at
    return total_s if opened_at is None else total_s + max(0.0, last_seen_at - opened_at)


def _attempts(ledger: Ledger, settled_at: dict[Chunk, float]) -> list[Attempted] | None:
    began: dict[_Key, float] = {}
    told: dict[_Key, float] = {}
    for entry in ledger.store.list(keys.ATTEMPTS):
        attempt = keys.parse_attempt(entry.key)
        (told if attempt.is_end else began)[Chunk.parse(attempt.chunk_id), attempt.number] = entry.stored_at
        if len(began) > MAX_ATTEMPTS:
            return None
    with ThreadPoolExecutor(_READS_AT_ONCE, "report") as pool:
        worker_ids = list(pool.map(lambda key: ledger.attempt(*key).worker_id, began))
        causes = dict(zip(told, pool.map(lambda key: _cause(ledger, *key), told), strict=True))

    def ended(chunk: Chunk, number: int) -> tuple[float | None, str]:
        if cause := causes.get((chunk, number)):
            return told[chunk, number], cause
        if (chunk, number + 1) in began:
            return began[chunk, number + 1], "lost"
        return settled_at.get(chunk), "settled" if chunk in settled_at else ""

    found = []
    for (chunk, number), worker_id in zip(began, worker_ids, strict=True):
        ended_at, how = ended(chunk, number)
        begun = began[chunk, number]
        found.append(
            Attempted(chunk=chunk, number=number, worker_id=worker_id, began_at=begun, ended_at=ended_at, end=how)
        )
    return found


def _cause(ledger: Ledger, chunk: Chunk, number: int) -> str:
    ends = ledger.ends(chunk, number)
    return ends[-1].cause.value if ends else ""


def _quarantine(store: Store, manifest: Manifest) -> Quarantine:
    if not manifest.num_quarantined:
        return Quarantine(rows=[], causes=[])
    with tempfile.TemporaryDirectory(prefix="fanfold-report-") as folder:
        path = Path(folder) / "quarantine.parquet"
        store.download(manifest.quarantine.key, path)
        rows = pl.scan_parquet(path)
        causes = rows.group_by("cause").agg(pl.len()).sort("len", "cause", descending=[True, False]).collect()
        return Quarantine(rows=rows.head(MAX_QUARANTINE_ROWS).collect().to_dicts(), causes=causes.rows())
