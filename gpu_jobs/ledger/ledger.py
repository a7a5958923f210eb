"""The campaign's facts about chunks: plan, attempts, parts, settlements, heartbeats. Append-only objects in the store.

Nothing here waits or retries; every race is decided by `Store.create`.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AliasChoices, Field, TypeAdapter

from gpu_jobs.errors import AuditError
from gpu_jobs.jobs.costs import WorkerSeconds
from gpu_jobs.jobs.failures import AttemptEnd, Failure
from gpu_jobs.ledger import keys, rows
from gpu_jobs.ledger.gpu_use import GpuUse
from gpu_jobs.ledger.ranges import Chunk, best_cover, subtract, tiling_problem
from gpu_jobs.store.base import Entry, Store
from gpu_jobs.store.parallel import get_many


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


class OpenChunk(NamedTuple):
    """A chunk that nobody has settled."""

    chunk: Chunk
    crashes: int


_PLAN = TypeAdapter(Plan)
_ATTEMPT = TypeAdapter(Attempt)
_END = TypeAdapter(AttemptEnd)
_SETTLEMENT = TypeAdapter(Settlement)
_HEARTBEAT = TypeAdapter(Heartbeat)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Ledger:
    """Typed reads and writes of one campaign's facts."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def create_plan(self, plan: Plan) -> bool:
        return self.store.create(keys.PLAN, _PLAN.dump_json(plan))

    def plan(self) -> Plan | None:
        body = self.store.get(keys.PLAN)
        return None if body is None else _PLAN.validate_json(body)

    def begin(self, attempt: Attempt) -> bool:
        """Lease a chunk; False if somebody else began this attempt."""
        key = keys.attempt(attempt.chunk.id, attempt.number)
        return self.store.create(key, _ATTEMPT.dump_json(attempt))

    def end(self, chunk: Chunk, number: int, end: AttemptEnd) -> bool:
        """Tell how an attempt ended without settling; the first to tell wins."""
        return self.store.create(keys.attempt_end(chunk.id, number), _END.dump_json(end))

    def attempt(self, chunk: Chunk, number: int) -> Attempt:
        body = self.store.get(keys.attempt(chunk.id, number))
        if body is None:
            raise AuditError(f"attempt {number} at {chunk.id} was listed and is gone")
        return _ATTEMPT.validate_json(body)

    def ends(self, chunk: Chunk, upto: int) -> list[AttemptEnd]:
        """How the attempts 1…upto at a chunk ended, those that told."""
        bodies = (self.store.get(keys.attempt_end(chunk.id, number)) for number in range(1, upto + 1))
        return [_END.validate_json(body) for body in bodies if body is not None]

    def write_part(self, attempt: Attempt, covered: Chunk, body: bytes, num_failed: int = 0) -> Committed:
        """Store finished rows, some of them errors; they count once a settlement cites them."""
        key = keys.part(attempt.chunk.id, attempt.number, covered.id)
        if not self.store.create(key, body):
            raise AuditError(f"{key} exists with other bytes: two GPU workers hold one attempt")
        return Committed(range=covered, part=key, sha256=sha256(body), num_failed=num_failed)

    def adopt_parts(self, chunk: Chunk) -> list[Committed]:
        """Of the parts that earlier attempts at this chunk left, those without overlap that hold most; in order.

        Parts overlap where an attempt that was taken for dead went on.
        """
        listed = self.store.list(keys.parts_of(chunk.id))
        found = {Chunk.parse(keys.part_range(entry.key)): entry.key for entry in listed}
        bodies = ((covered, found[covered], self.store.get(found[covered])) for covered in best_cover(found))
        return [
            Committed(range=covered, part=key, sha256=sha256(body), num_failed=len(rows.failed_items(body)))
            for covered, key, body in bodies
            if body is not None
        ]

    def settle(self, settlement: Settlement) -> bool:
        """End a chunk for ever; False if somebody else has."""
        key = keys.settled(settlement.chunk.id)
        return self.store.create(key, _SETTLEMENT.dump_json(settlement), settlement.summary)

    def is_settled(self, chunk: Chunk) -> bool:
        return self.store.get(keys.settled(chunk.id)) is not None

    def settlement(self, chunk: Chunk) -> Settlement | None:
        body = self.store.get(keys.settled(chunk.id))
        return None if body is None else _SETTLEMENT.validate_json(body)

    def want(self, chunk: Chunk, worker_id: str) -> None:
        """Ask the holder of a chunk to settle what it has now."""
        self.store.create(keys.wanted(chunk.id), worker_id.encode())

    def wanted(self) -> set[str]:
        """Ids of all chunks ever asked for."""
        return {keys.stem(entry.key) for entry in self.store.list(keys.WANTED)}

    def hedge(self, chunk: Chunk, number: int, reason: str) -> None:
        """Let another attempt begin while attempt `number` still lives."""
        self.store.create(keys.hedge(chunk.id, number), reason.encode())

    def hedged(self) -> set[tuple[str, int]]:
        """Chunk ids and attempts beside which another may begin."""
        names = (entry.key.removeprefix(keys.HEDGES).split(".") for entry in self.store.list(keys.HEDGES))
        return {(chunk_id, int(number)) for chunk_id, number, _ in names}

    def beat(self, heartbeat: Heartbeat) -> float:
        """Overwrite our heartbeat; return the store's stamp."""
        body = _HEARTBEAT.dump_json(heartbeat)
        summary = {**heartbeat.summary, "crc32": f"{zlib.crc32(body):08x}"}  # tells two of one stamp apart
        return self.store.put(keys.worker(heartbeat.worker_id), body, summary)

    def heartbeat(self, worker_id: str) -> Heartbeat | None:
        body = self.store.get(keys.worker(worker_id))
        return None if body is None else _HEARTBEAT.validate_json(body)

    def heartbeats(self, listed: Iterable[Entry] | None = None) -> list[tuple[Heartbeat, float]]:
        """GPU workers that ever lived, or those of some entries, each with the store's stamp of its last heartbeat.

        All are fetched, side by side; whoever looks again and again uses a `HeartbeatReader`.
        """
        entries = list(self.store.list(keys.WORKERS) if listed is None else listed)
        bodies = get_many(self.store, [entry.key for entry in entries])
        found = zip(entries, bodies, strict=True)
        return [(_HEARTBEAT.validate_json(body), entry.stored_at) for entry, body in found if body is not None]


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


def descend(planned: Sequence[Chunk], settled: Mapping[Chunk, tuple[OpenChunk, ...]]) -> Iterator[OpenChunk]:
    """Chunks under `planned` that nobody has settled, given each settlement's open tiles. Pure."""
    for chunk in planned:
        left = settled.get(chunk)
        if left is None:
            yield OpenChunk(chunk, 0)
            continue
        stack = [*reversed(left)]
        while stack:
            found = stack.pop()
            if found.chunk in settled:
                stack.extend(reversed(settled[found.chunk]))
            else:
                yield found
