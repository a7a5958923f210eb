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
    """One Parquet file of the items table, and the range of items in it."""

    range: Chunk
    key: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that determines the rows. It is written once; with it, the campaign exists."""

    workload: str
    params: dict[str, Any]
    dataset: str
    """The dataset as the caller named it."""
    dataset_digest: str
    """Digest of every input's id and fingerprint, in order."""
    sources: str
    """Key of the listing of those inputs, so that another dataset can be compared with it."""
    items: tuple[ItemsFile, ...]
    num_items: int
    total_weight: float
    chunk_boundaries: Annotated[tuple[int, ...], Field(validation_alias=AliasChoices("chunk_boundaries", "cuts"))]
    """Positions in the dataset at which the first chunks begin and end: the first is 0, the last is `num_items`."""
    chunk_reason: Annotated[str, Field(validation_alias=AliasChoices("chunk_reason", "cut_reason"))]
    """Why the chunks have this size, in words for people."""
    versions: dict[str, str]
    created_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The begin of one lease on a chunk."""

    chunk: Chunk
    number: int
    worker_id: Annotated[str, Field(validation_alias=AliasChoices("worker_id", "boot"))]
    follows: str
    """Why this attempt may follow the attempt before it; "" for the first."""
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A range of items whose rows are in a part."""

    range: Chunk
    part: str
    sha256: str
    num_failed: int = 0
    """How many of these items have an error instead of rows."""
    kind: Literal["committed"] = "committed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A range of items that have no rows because they kill GPU workers."""

    range: Chunk
    cause: str
    detail: str
    attempts: int
    """Number of attempts at this chunk, plus those at larger chunks whose crashes are blamed on it."""
    kind: Literal["quarantined"] = "quarantined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """A range of items that are left to do; it is a smaller chunk."""

    range: Chunk
    crashes: int = 0
    """How many crashes at the larger chunk are blamed on this one too."""
    kind: Literal["open"] = "open"


Tile = Committed | Quarantined | Open
IN_BODY = "in_body"
_MAX_OPEN_CHARS = 1500
"""Characters of a summary that open tiles may take; a store takes 2 KiB in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The one durable fact that ends a chunk.

    Raises `AuditError` if the tiles do not cover the chunk exactly, or if one open tile is the whole chunk.
    """

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
        """What a listing shows of a settlement: its open tiles, and how many items failed.

        `in_body` in place of the open tiles means that they are too many: read the body instead.
        """
        found = self.full_summary
        if len(found.get("open", "")) > _MAX_OPEN_CHARS:
            del found["open"]
            found[IN_BODY] = "1"
        return found

    @property
    def full_summary(self) -> dict[str, str]:
        """The same with all open tiles, however many they are."""
        found = {}
        if left := [f"{tile.range.id}:{tile.crashes}" for tile in self.tiles if tile.kind == "open"]:
            found["open"] = ",".join(left)
        if failed := sum(map(_num_failed, self.tiles)):
            found["failed"] = str(failed)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a GPU worker reports about itself. Only that GPU worker overwrites it."""

    worker_id: Annotated[str, Field(validation_alias=AliasChoices("worker_id", "boot"))]
    order: str
    slot: int
    host: str
    status: Literal["starting", "working", "idle", "over"]
    reason: str = ""
    """Why the GPU worker is over, in words for people; "" while it is not."""
    failure: Failure | None = None
    """Why the GPU worker failed, as it reports itself; None if it did not fail or is not over."""
    leases: tuple[str, ...] = ()
    """Ids of the chunks that the GPU worker holds."""
    items_done: int = 0
    items_failed: int = 0
    """How many of `items_done` have an error instead of rows."""
    items_per_s: float = 0.0
    """Pace over the last minute."""
    seconds: WorkerSeconds = field(default_factory=WorkerSeconds)
    """What the GPU worker has spent its time on so far."""
    gpu_use: GpuUse | None = None
    """None: GPU use could not be measured, or the heartbeat is of version 1, which had only words for it."""
    gpu_note: str = ""
    """Why GPU use, or a part of it, is unknown, in words for people."""
    facts: dict[str, str] = field(default_factory=dict)
    """Facts that the workload found out and that rows may depend on: `device`, `engine`, `precision`, ..."""
    batch_size: int = 0
    """The batch size that the workload has learned for this device; 0: none yet."""
    is_at_long_item: bool = False
    """True while the GPU worker works on an item that may take hours, such as a fine-tuning run."""
    doing: str = ""
    """Progress inside a long item, in words for people."""
    progress_marks: int = 0
    """How often a long item has reported progress; this number never falls."""
    checkpoints: int = 0
    """How many checkpoints of long items the GPU worker has stored."""
    is_warm: bool = False
    """True if another GPU worker ran in the same container before."""
    latencies: dict[int, int] = field(default_factory=dict)
    """Number of items by the duration of the micro-batch that they were in; see `gpu_jobs.telemetry.latencies`."""
    version: int = 2

    @property
    def mean_items_per_s(self) -> float:
        """Items per second of work since the GPU worker started; 0 before it has worked."""
        return self.items_done / self.seconds.working if self.seconds.working > 0 else 0.0

    @property
    def summary(self) -> dict[str, str]:
        """What a listing shows of a heartbeat. `in_body` means that something did not fit: read the body instead."""
        leases = " ".join("{}-{}".format(*Chunk.parse(lease)) for lease in self.leases)
        device = self.facts.get("device", "") if self.batch_size else ""
        found = {"order": self.order, "slot": str(self.slot), "status": self.status}
        if len(leases) > _MAX_LISTED_LEASES or len(device) > _MAX_LISTED_DEVICE or not device.isascii():
            return {**found, IN_BODY: "1"}
        if leases:
            found["leases"] = leases
        if device:
            found |= {"device": device, "batch_size": str(self.batch_size)}
        return found


_MAX_LISTED_LEASES, _MAX_LISTED_DEVICE = 1400, 200
"""In characters; within these limits a heartbeat's summary stays below `store.base.MAX_SUMMARY_BYTES`."""


def _num_failed(tile: Tile) -> int:
    if isinstance(tile, Committed):
        return tile.num_failed
    return tile.range.num_items if isinstance(tile, Quarantined) else 0


def tiles_left(chunk: Chunk, parts: Iterable[Committed], crashes: int) -> tuple[Tile, ...]:
    """The tiles of a settlement of `chunk`: what the parts cover is committed, the rest is open."""
    committed = list(parts)
    left = subtract(chunk, (tile.range for tile in committed))
    tiles: list[Tile] = [*committed, *(Open(range=piece, crashes=crashes) for piece in left)]
    return tuple(sorted(tiles, key=lambda tile: tile.range))
