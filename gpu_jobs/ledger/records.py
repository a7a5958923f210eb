"""The records of a campaign: what is stored as JSON under its prefix, except for the journal.

Field names are a format on disk: a field that was renamed is still read by its old name.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field

from gpu_jobs.errors import AuditError
from gpu_jobs.jobs.costs import WorkerSeconds
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.ledger.gpu_use import GpuUse
from gpu_jobs.ledger.ranges import Chunk, subtract, tiling_problem


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsFile:
    """One Parquet file of the items table."""

    range: Chunk
    key: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What determines the rows. Written once; the commit point of a split."""

    workload: str
    params: dict[str, Any]
    dataset: str
    """What the caller named."""
    dataset_digest: str
    """Of every input's id and fingerprint, in order."""
    sources: str
    """Key of that listing, for comparison."""
    items: tuple[ItemsFile, ...]
    num_items: int
    total_weight: float
    chunk_boundaries: Annotated[tuple[int, ...], Field(validation_alias=AliasChoices("chunk_boundaries", "cuts"))]
    """Of the first chunks: first 0, last `num_items`."""
    chunk_reason: Annotated[str, Field(validation_alias=AliasChoices("chunk_reason", "cut_reason"))]
    versions: dict[str, str]
    created_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One lease on a chunk, as it began."""

    chunk: Chunk
    number: int
    worker_id: Annotated[str, Field(validation_alias=AliasChoices("worker_id", "boot"))]
    follows: str
    """Why it may follow the attempt before it; "" for the first."""
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """Items whose rows are in a part."""

    range: Chunk
    part: str
    sha256: str
    num_failed: int = 0
    """Of these items, how many have an error instead of rows."""
    kind: Literal["committed"] = "committed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """Items that have no rows because they kill GPU workers."""

    range: Chunk
    cause: str
    detail: str
    attempts: int
    """At this chunk, and those at larger ones that were held against it."""
    kind: Literal["quarantined"] = "quarantined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Items left to do: a smaller chunk."""

    range: Chunk
    crashes: int = 0
    """Convicting crashes that it inherits."""
    kind: Literal["open"] = "open"


Tile = Committed | Quarantined | Open


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The one durable fact that ends a chunk."""

    chunk: Chunk
    attempt: int
    worker_id: Annotated[str, Field(validation_alias=AliasChoices("worker_id", "boot"))]
    tiles: tuple[Tile, ...]
    version: int = 1

    def __post_init__(self) -> None:
        if problem := tiling_problem((tile.range for tile in self.tiles), self.chunk):
            raise AuditError(f"settlement of {self.chunk.id}: {problem}")
        if any(tile.kind == "open" and tile.range == self.chunk for tile in self.tiles):
            raise AuditError(f"settlement of {self.chunk.id} leaves all of it open")

    @property
    def summary(self) -> dict[str, str]:
        """What a listing tells of it: its open tiles, and how many items have no rows because they failed."""
        found = {}
        if left := [f"{tile.range.id}:{tile.crashes}" for tile in self.tiles if tile.kind == "open"]:
            found["open"] = ",".join(left)
        if failed := sum(map(_num_failed, self.tiles)):
            found["failed"] = str(failed)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a GPU worker says of itself. Overwritten by its owner only."""

    worker_id: Annotated[str, Field(validation_alias=AliasChoices("worker_id", "boot"))]
    order: str
    slot: int
    host: str
    status: Literal["starting", "working", "idle", "over"]
    reason: str = ""
    """Why it is over."""
    failure: Failure | None = None
    """What it failed of, by its own account; None if it did not, or is not over."""
    leases: tuple[str, ...] = ()
    """Chunk ids in hand."""
    items_done: int = 0
    items_failed: int = 0
    """Error rows among `items_done`."""
    items_per_s: float = 0.0
    """Over the last minute."""
    seconds: WorkerSeconds = field(default_factory=WorkerSeconds)
    """Its life so far."""
    gpu_use: GpuUse | None = None
    """None: it could not be measured, or the heartbeat is of version 1, which had words only."""
    gpu_note: str = ""
    """Why GPU use, or a part of it, is unknown; for people."""
    facts: dict[str, str] = field(default_factory=dict)
    """What its workload found out and rows may depend on: `device`, `engine`, `precision`, ..."""
    batch_size: int = 0
    """What its workload has learned of such a device; 0: nothing yet."""
    is_at_long_item: bool = False
    """It works on an item that may take hours, such as a fine-tuning run."""
    doing: str = ""
    """How far it is with a long item, in words for people."""
    progress_marks: int = 0
    """How often a long item has reported progress; grows only."""
    checkpoints: int = 0
    """Of long items that it has put into the store."""
    is_warm: bool = False
    """Its container has served another GPU worker before."""
    latencies: dict[int, int] = field(default_factory=dict)
    """Items by how long the micro-batch that each was in took; see `gpu_jobs.telemetry.latencies`."""
    version: int = 2

    @property
    def mean_items_per_s(self) -> float:
        """Items per second of work, over its whole life; 0 before it has worked."""
        return self.items_done / self.seconds.working if self.seconds.working > 0 else 0.0

    @property
    def summary(self) -> dict[str, str]:
        """What a listing tells of it. With `in_body`, something did not fit, and only the body has all."""
        leases = " ".join("{}-{}".format(*Chunk.parse(lease)) for lease in self.leases)
        device = self.facts.get("device", "") if self.batch_size else ""
        found = {"order": self.order, "slot": str(self.slot), "status": self.status}
        if len(leases) > _MAX_LISTED_LEASES or len(device) > _MAX_LISTED_DEVICE or not device.isascii():
            return {**found, "in_body": "1"}
        if leases:
            found["leases"] = leases
        if device:
            found |= {"device": device, "batch_size": str(self.batch_size)}
        return found


_MAX_LISTED_LEASES, _MAX_LISTED_DEVICE = 1400, 200
"""Characters, so that a heartbeat's summary stays below what a store keeps of one."""


def _num_failed(tile: Tile) -> int:
    if isinstance(tile, Committed):
        return tile.num_failed
    return tile.range.num_items if isinstance(tile, Quarantined) else 0


def tiles_left(chunk: Chunk, parts: Iterable[Committed], crashes: int) -> tuple[Tile, ...]:
    """A settlement's tiles: what the parts cover is committed, the rest open."""
    committed = list(parts)
    left = subtract(chunk, (tile.range for tile in committed))
    tiles: list[Tile] = [*committed, *(Open(range=piece, crashes=crashes) for piece in left)]
    return tuple(sorted(tiles, key=lambda tile: tile.range))
