"""Audit what was settled, then publish it in item order. This can be repeated, also for a partial result.

Rows go to `outputs/<nonce>/part-*.parquet`, items without rows to `quarantine.parquet`; the manifest, which is
created once for the digest of exactly these settlements, makes them the campaign's output.
"""

import hashlib
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from gpu_jobs.campaign.exports import export
from gpu_jobs.campaign.manifest import Manifest, OutputFile, publish_manifest, read_manifest
from gpu_jobs.errors import AuditError
from gpu_jobs.ledger import keys, rows
from gpu_jobs.ledger.items import ItemsReader
from gpu_jobs.ledger.ledger import Ledger, sha256
from gpu_jobs.ledger.ranges import Chunk, from_boundaries, tiling_problem
from gpu_jobs.ledger.records import Committed, Plan, Quarantined, Settlement
from gpu_jobs.store import Store
from gpu_jobs.telemetry.workers import GpuWorkers
from gpu_jobs.workloads import load_workload

ROWS_PER_FILE = 1_000_000
_QUARANTINE = {"item_index": pl.Int64, "item": pl.String, "cause": pl.String, "detail": pl.String, "attempts": pl.Int64}
_PIECE_ROWS = 100_000
_READS_AT_ONCE = 16
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, slots=True)
class Audit:
    """The tiles of a campaign, in order; each item is in exactly one of them."""

    committed: tuple[Committed, ...]
    quarantined: tuple[Quarantined, ...]
    open: tuple[Chunk, ...]

    @property
    def digest(self) -> str:
        facts = [f"{tile.range.id} {tile.sha256}" for tile in self.committed]
        facts += [f"{tile.range.id} {tile.cause}" for tile in self.quarantined]
        return hashlib.sha256("\n".join(sorted(facts)).encode()).hexdigest()


def audit(plan: Plan, settlements: Iterable[Settlement]) -> Audit:
    """Follow the settlements from the plan's chunks down to the tiles. Pure.

    Raises:
        AuditError: their tiles leave a gap or overlap.
    """
    by_chunk = {settlement.chunk: settlement for settlement in settlements}
    committed: list[Committed] = []
    quarantined: list[Quarantined] = []
    left: list[Chunk] = []
    stack = list(reversed(from_boundaries(plan.chunk_boundaries)))
    while stack:
        chunk = stack.pop()
        settlement = by_chunk.get(chunk)
        if settlement is None:
            left.append(chunk)
            continue
        for tile in reversed(settlement.tiles):
            if isinstance(tile, Committed):
                committed.append(tile)
            elif isinstance(tile, Quarantined):
                quarantined.append(tile)
            else:
                stack.append(tile.range)
    ranges = [*(tile.range for tile in committed), *(tile.range for tile in quarantined), *left]
    if problem := tiling_problem(ranges, Chunk(0, plan.num_items)):
        raise AuditError(f"settlements do not tile the {plan.num_items} items: {problem}")
    return Audit(
        tuple(sorted(committed, key=lambda tile: tile.range)),
        tuple(sorted(quarantined, key=lambda tile: tile.range)),
        tuple(sorted(left)),
    )


def collect(store: Store, plan: Plan, workers: GpuWorkers | None = None) -> Manifest:
    """Audit and publish what is settled now; return its manifest.

    Args:
        store: the campaign's store.
        plan: the campaign's plan.
        workers: all GPU workers of the campaign, if the caller has read their heartbeats already.

    Raises:
        AuditError: there is a gap, an overlap, a wrong checksum, or a row that does not match its item. Nothing is
            published then.
    """
    ledger = Ledger(store)
    chunks = (Chunk.parse(keys.stem(entry.key)) for entry in store.list(keys.SETTLED))
    found = audit(plan, filter(None, _read_ahead(ledger.settlement, chunks)))
    if published := read_manifest(store, found.digest):
        return published
    facts = (GpuWorkers(ledger.heartbeats()) if workers is None else workers).facts()
    with tempfile.TemporaryDirectory(prefix="fanfold-collect-") as folder:
        manifest = _Collector(store, plan, found, facts, Path(folder)).publish()
    return publish_manifest(store, manifest)


class _Collector:
    """Writes and uploads the files of one publication."""

    def __init__(self, store: Store, plan: Plan, found: Audit, facts: dict[str, list[str]], folder: Path) -> None:
        self._store = store
        self._plan = plan
        self._audit = found
        self._facts = facts
        self._folder = folder
        self._rows_path = folder / "rows.parquet"
        self._nonce = uuid.uuid4().hex[:12]
        self._workload = load_workload(plan.workload, plan.params)
        self._items = ItemsReader(store, plan)
        self._quarantine: list[dict[str, Any]] = []

    def publish(self) -> Manifest:
        self._write_pieces()
        outputs = self._write_outputs()
        for tile in self._audit.quarantined:
            for index, item in self._named(tile.range):
                self._set_aside(index, item, tile.cause, tile.detail, tile.attempts)
        self._quarantine.sort(key=lambda row: row["item_index"])
        frame = pl.DataFrame(self._quarantine, schema=_QUARANTINE, orient="row")
        path = self._folder / "quarantine.parquet"
        frame.write_parquet(path)
        num_open = sum(chunk.num_items for chunk in self._audit.open)
        created_at = datetime.now(UTC)
        exported = export(
            self._workload, self._store, self._plan, rows=pl.scan_parquet(self._rows_path), quarantine=frame,
            left=self._audit.open, created_at=created_at, folder=self._folder,
        )  # fmt: skip
        return Manifest(
            digest=self._audit.digest,
            is_complete=not num_open,
            num_items=self._plan.num_items,
            num_committed=self._plan.num_items - num_open - frame.height,
            num_quarantined=frame.height,
            num_open=num_open,
            outputs=outputs,
            quarantine=self._upload(path, frame.height),
            workload=self._plan.workload,
            params=self._plan.params,
            dataset=self._plan.dataset,
            dataset_digest=self._plan.dataset_digest,
            versions=self._plan.versions,
            facts=self._facts,
            exports=tuple(self._upload(path) for path in exported),
            created_at=created_at,
        )

    def _write_pieces(self) -> None:
        """Check the rows and write them in item order to local Parquet files, which polars can stream."""
        pending: list[pl.DataFrame] = []
        tiles: list[Committed] = []
        num_rows = number = 0
        for tile, frame in zip(self._audit.committed, _read_ahead(self._read, self._audit.committed), strict=True):
            tiles.append(tile)
            pending.append(frame)
            num_rows += frame.height
            if num_rows >= _PIECE_ROWS:
                self._write_piece(number, self._checked(tiles, pl.concat(pending)))
                number, num_rows, pending, tiles = number + 1, 0, [], []
        empty = pl.DataFrame(schema=rows.schema(self._workload.columns))
        self._write_piece(number, self._checked(tiles, pl.concat(pending) if pending else empty))

    def _write_piece(self, number: int, frame: pl.DataFrame) -> None:
        frame.write_parquet(self._folder / f"piece-{number:06d}.parquet")

    def _write_outputs(self) -> tuple[OutputFile, ...]:
        lazy = self._workload.finish(pl.scan_parquet(self._folder / "piece-*.parquet"))
        whole = self._rows_path
        lazy.sink_parquet(whole, maintain_order=True)
        num_rows = pl.scan_parquet(whole).select(pl.len()).collect().item()
        files = []
        for number, offset in enumerate(range(0, max(num_rows, 1), ROWS_PER_FILE)):
            path = self._folder / f"part-{number:05d}.parquet"
            height = min(ROWS_PER_FILE, num_rows - offset)
            pl.scan_parquet(whole).slice(offset, ROWS_PER_FILE).sink_parquet(path, maintain_order=True)
            files.append(self._upload(path, height))
        return tuple(files)

    def _read(self, tile: Committed) -> pl.DataFrame:
        """Read a part and check it against its settlement."""
        body = self._store.get(tile.part)
        if body is None or sha256(body) != tile.sha256:
            state = "is gone" if body is None else "has another checksum than its settlement recorded"
            raise AuditError(f"{tile.part} {state}")
        return rows.decode(body)

    def _checked(self, tiles: list[Committed], frame: pl.DataFrame) -> pl.DataFrame:
        """Check the items of consecutive tiles, move failed items to the quarantine, and return the remaining rows."""
        self._check_items(tiles, frame)
        errors = frame.filter(pl.col("outcome") == rows.ERROR)
        parts = iter(tiles)
        tile = next(parts, None)
        for row in errors.iter_rows(named=True):
            while tile is not None and row["item_index"] >= tile.range.stop:
                tile = next(parts, None)
            assert tile is not None
            attempts = keys.part_attempt(tile.part)
            self._set_aside(row["item_index"], row["item"], rows.ERROR, row["error"], attempts)
        return frame.filter(pl.col("outcome") == rows.ROW).drop("outcome", "error")

    def _check_items(self, tiles: list[Committed], frame: pl.DataFrame) -> None:
        """Check that every item of the tiles is there, in order, with the plan's id, and with at most one error."""
        outcome = pl.col("outcome")
        seen = frame.group_by("item_index", maintain_order=True).agg(
            pl.col("item").first(),
            ids=pl.col("item").n_unique(),
            kinds=outcome.filter(outcome != rows.ERROR).n_unique(),
            errors=(outcome == rows.ERROR).sum(),
        )
        wanted = {index: item for tile in tiles for index, item in self._named(tile.range)}
        found = dict(zip(seen["item_index"], seen["item"], strict=True))
        if list(found) != list(wanted) or found != wanted:
            wrong = next((index for index in sorted({*found, *wanted}) if found.get(index) != wanted.get(index)), None)
            if wrong is None:
                raise AuditError(f"a part of [{tiles[0].range.start}, {tiles[-1].range.stop}) is not in item order")
            raise AuditError(f"item {wrong}: the plan says {wanted.get(wrong)!r}, its part says {found.get(wrong)!r}")
        if seen.filter((pl.col("ids") > 1) | (pl.col("kinds") > 1) | (pl.col("errors") > 1)).height:
            raise AuditError("a part holds an item with two ids, two kinds of outcome or two errors")

    def _named(self, covered: Chunk) -> Iterator[tuple[int, str]]:
        return zip(range(*covered), (item["item"] for item in self._items.read(covered)), strict=True)

    def _set_aside(self, index: int, item: str, cause: str, detail: str, attempts: int) -> None:
        self._quarantine.append(
            {"item_index": index, "item": item, "cause": cause, "detail": detail, "attempts": attempts}
        )

    def _upload(self, path: Path, num_rows: int = 0) -> OutputFile:
        key = keys.output(self._nonce, path.name)
        self._store.upload(key, path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return OutputFile(key=key, num_rows=num_rows, num_bytes=path.stat().st_size, sha256=digest)


def _read_ahead(read: Callable[[_In], _Out], wanted: Iterable[_In]) -> Iterator[_Out]:
    """Work like `map`, with a limited number of parallel reads, since a bucket takes tens of milliseconds for each."""
    left = iter(wanted)
    with ThreadPoolExecutor(_READS_AT_ONCE, "collect") as pool:
        while batch := list(islice(left, 4 * _READS_AT_ONCE)):
            yield from pool.map(read, batch)
