"""Collect: audit what was settled, then publish it in item order. It can be repeated, also for a partial result.

Rows go to `outputs/<nonce>/part-*.parquet`, items without rows to `quarantine.parquet`; the manifest, created once for
the digest of exactly these settlements, is what makes them the campaign's output.
"""

import hashlib
import io
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import TypeAdapter

from gpu_jobs import layout, rows
from gpu_jobs.chunks import Chunk, from_cuts, tiling_problem
from gpu_jobs.errors import AuditError
from gpu_jobs.items import ItemsReader
from gpu_jobs.ledger import Committed, Ledger, Plan, Quarantined, Settlement
from gpu_jobs.store import Store
from gpu_jobs.workloads import load_workload

ROWS_PER_FILE = 1_000_000
_QUARANTINE = {"item_index": pl.Int64, "item": pl.String, "cause": pl.String, "detail": pl.String, "attempts": pl.Int64}
_PIECE_ROWS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    key: str
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What was published, from exactly which settlements."""

    digest: str
    """Of the tiles that it was made of."""
    is_complete: bool
    """False: some items are still open, and a later manifest will have more."""
    num_items: int
    num_committed: int
    """Items with rows, or known to have none."""
    num_quarantined: int
    num_open: int
    outputs: tuple[OutputFile, ...]
    quarantine: OutputFile
    workload: str
    params: dict[str, Any]
    dataset: str
    dataset_digest: str
    versions: dict[str, str]
    created_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True)
class Audit:
    """The tiles of a campaign, in order; each item is in exactly one."""

    committed: tuple[Committed, ...]
    quarantined: tuple[Quarantined, ...]
    open: tuple[Chunk, ...]

    @property
    def digest(self) -> str:
        facts = [f"{tile.range.id} {tile.sha256}" for tile in self.committed]
        facts += [f"{tile.range.id} {tile.cause}" for tile in self.quarantined]
        return hashlib.sha256("\n".join(sorted(facts)).encode()).hexdigest()


_MANIFEST = TypeAdapter(Manifest)


def audit(plan: Plan, settlements: Iterable[Settlement]) -> Audit:
    """Follow the settlements down from the first cut. Pure.

    Raises:
        AuditError: their tiles leave a gap or overlap.
    """
    by_chunk = {settlement.chunk: settlement for settlement in settlements}
    committed: list[Committed] = []
    quarantined: list[Quarantined] = []
    left: list[Chunk] = []
    stack = list(reversed(from_cuts(plan.cuts)))
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
    ranges = [tile.range for tile in (*committed, *quarantined)] + left
    if problem := tiling_problem(ranges, Chunk(0, plan.num_items)):
        raise AuditError(f"settlements do not tile the {plan.num_items} items: {problem}")
    return Audit(
        tuple(sorted(committed, key=lambda tile: tile.range)),
        tuple(sorted(quarantined, key=lambda tile: tile.range)),
        tuple(sorted(left)),
    )


def collect(store: Store, plan: Plan) -> Manifest:
    """Audit and publish what is settled now; return the manifest that holds for it.

    Raises:
        AuditError: gap, overlap, wrong checksum, or rows that do not match the items. Nothing is published.
    """
    ledger = Ledger(store)
    settlements = (ledger.settlement(Chunk.parse(layout.stem(entry.key))) for entry in store.list(layout.SETTLED))
    found = audit(plan, (settlement for settlement in settlements if settlement is not None))
    if published := read_manifest(store, found.digest):
        return published
    with tempfile.TemporaryDirectory(prefix="fanfold-collect-") as folder:
        manifest = _Collector(store, plan, found, Path(folder)).publish()
    store.create(layout.manifest(found.digest), _MANIFEST.dump_json(manifest))
    return read_manifest(store, found.digest) or manifest  # another collector's, if it was faster


def read_manifest(store: Store, digest: str) -> Manifest | None:
    body = store.get(layout.manifest(digest))
    return None if body is None else _MANIFEST.validate_json(body)


def newest_manifest(store: Store) -> Manifest | None:
    """The manifest with the fewest open items, if anything was published."""
    found = (read_manifest(store, layout.stem(entry.key)) for entry in store.list(layout.MANIFESTS))
    return min((each for each in found if each is not None), key=lambda each: each.num_open, default=None)


class _Collector:
    def __init__(self, store: Store, plan: Plan, found: Audit, folder: Path) -> None:
        self._store = store
        self._plan = plan
        self._audit = found
        self._folder = folder
        self._nonce = uuid.uuid4().hex[:12]
        self._workload = load_workload(plan.workload, plan.params)
        self._items = ItemsReader(store, plan)
        self._quarantine: list[dict[str, Any]] = []

    def publish(self) -> Manifest:
        self._write_pieces()
        outputs = self._write_outputs()
        for tile in self._audit.quarantined:
            for index, item in zip(range(*tile.range), self._items.read(tile.range), strict=True):
                self._set_aside(index, item["item"], tile.cause, tile.detail, tile.attempts)
        self._quarantine.sort(key=lambda row: row["item_index"])
        frame = pl.DataFrame(self._quarantine, schema=_QUARANTINE, orient="row")
        path = self._folder / "quarantine.parquet"
        frame.write_parquet(path)
        num_open = sum(chunk.num_items for chunk in self._audit.open)
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
            created_at=datetime.now(UTC),
        )

    def _write_pieces(self) -> None:
        """Checked rows in item order, as Parquet files that polars can stream."""
        pending: list[pl.DataFrame] = []
        number = 0
        for frame in self._checked_frames():
            pending.append(frame)
            if sum(each.height for each in pending) >= _PIECE_ROWS:
                self._write_piece(number, pending)
                number, pending = number + 1, []
        self._write_piece(number, pending)

    def _write_piece(self, number: int, frames: list[pl.DataFrame]) -> None:
        schema = {"item_index": pl.Int64, "item": pl.String, **self._workload.columns}
        frame = pl.concat(frames) if frames else pl.DataFrame(schema=schema)
        frame.write_parquet(self._folder / f"piece-{number:06d}.parquet")

    def _write_outputs(self) -> tuple[OutputFile, ...]:
        lazy = self._workload.finish(pl.scan_parquet(self._folder / "piece-*.parquet"))
        whole = self._folder / "rows.parquet"
        lazy.sink_parquet(whole, maintain_order=True)
        num_rows = pl.scan_parquet(whole).select(pl.len()).collect().item()
        files = []
        for number, offset in enumerate(range(0, max(num_rows, 1), ROWS_PER_FILE)):
            path = self._folder / f"part-{number:05d}.parquet"
            height = min(ROWS_PER_FILE, num_rows - offset)
            pl.scan_parquet(whole).slice(offset, ROWS_PER_FILE).sink_parquet(path, maintain_order=True)
            files.append(self._upload(path, height))
        return tuple(files)

    def _checked_frames(self) -> Iterator[pl.DataFrame]:
        """Each part's rows, after its checksum and its items were checked and its errors set aside."""
        for tile in self._audit.committed:
            body = self._store.get(tile.part)
            if body is None or hashlib.sha256(body).hexdigest() != tile.sha256:
                state = "is gone" if body is None else "has another checksum than its settlement recorded"
                raise AuditError(f"{tile.part} {state}")
            frame = rows.decode(body)
            self._check_items(tile, frame)
            attempts = int(tile.part.split(".")[1].partition("/")[0])
            for row in frame.filter(pl.col("outcome") == rows.ERROR).iter_rows(named=True):
                self._set_aside(row["item_index"], row["item"], rows.ERROR, row["error"], attempts)
            yield frame.filter(pl.col("outcome") == rows.ROW).drop("outcome", "error")

    def _check_items(self, tile: Committed, frame: pl.DataFrame) -> None:
        """Every item of the tile, each with the id that the plan gave it, in order, and with one kind of outcome."""
        seen = frame.group_by("item_index", maintain_order=True).agg(
            pl.col("item").first(), pl.col("item").n_unique().alias("ids"), pl.col("outcome").n_unique().alias("kinds")
        )
        wanted = [item["item"] for item in self._items.read(tile.range)]
        if seen["item_index"].to_list() != list(range(*tile.range)) or seen["item"].to_list() != wanted:
            raise AuditError(f"{tile.part} does not hold exactly the items [{tile.range.start}, {tile.range.stop})")
        if seen.height and (seen["ids"].max() != 1 or seen["kinds"].max() != 1):
            raise AuditError(f"{tile.part} holds an item with two ids or two outcomes")

    def _set_aside(self, index: int, item: str, cause: str, detail: str, attempts: int) -> None:
        self._quarantine.append(
            {"item_index": index, "item": item, "cause": cause, "detail": detail, "attempts": attempts}
        )

    def _upload(self, path: Path, num_rows: int) -> OutputFile:
        key = layout.output(self._nonce, path.name)
        self._store.upload(key, path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return OutputFile(key=key, num_rows=num_rows, num_bytes=path.stat().st_size, sha256=digest)


def read_output(store: Store, file: OutputFile) -> pl.DataFrame:
    """One output file, in memory."""
    body = store.get(file.key)
    if body is None:
        raise AuditError(f"{file.key} is gone; collect again")
    return pl.read_parquet(io.BytesIO(body))
