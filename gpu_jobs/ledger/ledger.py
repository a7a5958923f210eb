"""Typed reads and writes of a campaign's facts about chunks: plan, attempts, parts, settlements, heartbeats.

Nothing here waits or retries; every race is decided by `Store.create`.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pydantic import TypeAdapter

from gpu_jobs.errors import AuditError
from gpu_jobs.jobs.failures import AttemptEnd
from gpu_jobs.ledger import keys, rows
from gpu_jobs.ledger.ranges import Chunk, best_cover
from gpu_jobs.ledger.records import Attempt, Committed, Heartbeat, Plan, Settlement
from gpu_jobs.store.base import Entry, Store
from gpu_jobs.store.parallel import get_many


class OpenChunk(NamedTuple):
    """A chunk that nobody has settled, and how many crashes at larger chunks are blamed on it."""

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
    """Reads and writes the records of one campaign."""

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
        """Record how an attempt ended without a settlement; False if another end was recorded before."""
        return self.store.create(keys.attempt_end(chunk.id, number), _END.dump_json(end))

    def attempt(self, chunk: Chunk, number: int) -> Attempt:
        body = self.store.get(keys.attempt(chunk.id, number))
        if body is None:
            raise AuditError(f"attempt {number} at {chunk.id} was listed before, but is now missing")
        return _ATTEMPT.validate_json(body)

    def ends(self, chunk: Chunk, upto: int) -> list[AttemptEnd]:
        """How the attempts 1 to `upto` at a chunk ended; attempts without a recorded end are left out."""
        bodies = (self.store.get(keys.attempt_end(chunk.id, number)) for number in range(1, upto + 1))
        return [_END.validate_json(body) for body in bodies if body is not None]

    def write_part(self, attempt: Attempt, covered: Chunk, body: bytes, num_failed: int = 0) -> Committed:
        """Store finished rows; they count once a settlement cites the part.

        Args:
            attempt: the attempt that made the rows.
            covered: the range of their items.
            body: the rows, encoded.
            num_failed: how many of the items have an error instead of rows.

        Raises:
            AuditError: this attempt has stored other bytes for this range.
        """
        key = keys.part(attempt.chunk.id, attempt.number, covered.id)
        if not self.store.create(key, body):
            raise AuditError(f"{key} exists with other bytes: two GPU workers hold one attempt")
        return Committed(range=covered, part=key, sha256=sha256(body), num_failed=num_failed)

    def adopt_parts(self, chunk: Chunk) -> list[Committed]:
        """Choose from the parts of earlier attempts at this chunk: as many items as possible, no overlap, in order.

        Parts overlap where an attempt that was taken for dead was still at work.
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
        """End a chunk for ever; False if somebody else has settled it."""
        key = keys.settled(settlement.chunk.id)
        return self.store.create(key, _SETTLEMENT.dump_json(settlement), settlement.summary)

    def is_settled(self, chunk: Chunk) -> bool:
        return self.store.get(keys.settled(chunk.id)) is not None

    def settlement(self, chunk: Chunk) -> Settlement | None:
        body = self.store.get(keys.settled(chunk.id))
        return None if body is None else _SETTLEMENT.validate_json(body)

    def want(self, chunk: Chunk, worker_id: str) -> None:
        """Ask the holder of a chunk to settle now what it has, and to leave the rest open."""
        self.store.create(keys.wanted(chunk.id), worker_id.encode())

    def wanted(self) -> set[str]:
        """Ids of all chunks for which `want` was ever called."""
        return {keys.stem(entry.key) for entry in self.store.list(keys.WANTED)}

    def hedge(self, chunk: Chunk, number: int, reason: str) -> None:
        """Allow another attempt to begin while attempt `number` is still alive."""
        self.store.create(keys.hedge(chunk.id, number), reason.encode())

    def hedged(self) -> set[tuple[str, int]]:
        """Chunk id and number of each attempt beside which `hedge` allowed another."""
        names = (entry.key.removeprefix(keys.HEDGES).split(".") for entry in self.store.list(keys.HEDGES))
        return {(chunk_id, int(number)) for chunk_id, number, _ in names}

    def beat(self, heartbeat: Heartbeat) -> float:
        """Overwrite this GPU worker's heartbeat; return the store's stamp of it."""
        body = _HEARTBEAT.dump_json(heartbeat)
        # The checksum distinguishes two heartbeats with the same stamp.
        summary = {**heartbeat.summary, "crc32": f"{zlib.crc32(body):08x}"}
        return self.store.put(keys.worker(heartbeat.worker_id), body, summary)

    def heartbeat(self, worker_id: str) -> Heartbeat | None:
        body = self.store.get(keys.worker(worker_id))
        return None if body is None else _HEARTBEAT.validate_json(body)

    def heartbeats(self, listed: Iterable[Entry] | None = None) -> list[tuple[Heartbeat, float]]:
        """The last heartbeat of every GPU worker, or of those in `listed`, each with the store's stamp of it.

        All are fetched, several at a time. To read again and again, use a `HeartbeatReader`.
        """
        entries = list(self.store.list(keys.WORKERS) if listed is None else listed)
        bodies = get_many(self.store, [entry.key for entry in entries])
        found = zip(entries, bodies, strict=True)
        return [(_HEARTBEAT.validate_json(body), entry.stored_at) for entry, body in found if body is not None]


def descend(planned: Sequence[Chunk], settled: Mapping[Chunk, tuple[OpenChunk, ...]]) -> Iterator[OpenChunk]:
    """The chunks within `planned` that nobody has settled, given the open tiles of each settlement. Pure."""
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
