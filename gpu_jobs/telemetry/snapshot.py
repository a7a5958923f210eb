"""The one read model: what a campaign's store says at one moment. What people and `decide` see is computed from it.

Nothing else reads heartbeats or the survey of chunks. Each look at a campaign takes one `Moment`, reads one
`Snapshot` and passes both on, so that everything that is shown or decided is about the same moment.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from gpu_jobs.ledger.heartbeats import HeartbeatReader
from gpu_jobs.ledger.journal import Journal, JournalState
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.open_chunks import Lease, Survey
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Plan
from gpu_jobs.telemetry.workers import GpuWorkers


@dataclass(frozen=True, slots=True)
class Moment:
    """One reading of this process's clocks."""

    at: datetime
    """Wall-clock time, UTC."""
    monotonic_s: float

    @classmethod
    def now(cls) -> Self:
        return cls(datetime.now(UTC), time.monotonic())


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunksLeft:
    """The chunks that nobody had settled at the last survey."""

    at: datetime
    """When they were listed, by this process's clock, UTC."""
    open: frozenset[Chunk]
    items_left: int
    quarantined_items: int
    """Number of items of the campaign that failed and so have no rows."""
    leases: Mapping[Chunk, Lease]
    """The newest attempt at each chunk; empty if the survey did not ask for attempts."""

    def exhausted(self, max_attempts: int) -> str:
        """The id of an open chunk of which the last allowed attempt has ended; "" if there is none."""
        spent = (chunk for chunk, lease in self.leases.items() if lease.ended and lease.number >= max_attempts)
        return next((chunk.id for chunk in spent if chunk in self.open), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a campaign's store held at one moment."""

    at: datetime
    """When the store was read, by this process's clock, UTC."""
    plan: Plan
    journal: JournalState
    workers: GpuWorkers
    chunks: ChunksLeft


class SnapshotReader:
    """Reads one campaign again and again; what can no longer change is read only once."""

    def __init__(self, ledger: Ledger, plan: Plan, journal: Journal) -> None:
        self._plan = plan
        self._journal = journal
        self._survey = Survey(ledger, plan.chunk_boundaries)
        self._chunks: ChunksLeft | None = None
        self._heartbeats = HeartbeatReader(ledger)
        self.survey_s = 0.0
        """Seconds that the last survey took."""

    def workers(self) -> GpuWorkers:
        """All GPU workers that ever sent a heartbeat. This costs one listing and one read for each new heartbeat."""
        return GpuWorkers(self._heartbeats.read())

    def read(self, now: Moment, *, must_survey: bool = True, with_attempts: bool = False) -> Snapshot:
        """Read journal and heartbeats, and list the chunks that are left.

        Args:
            now: the moment of the snapshot.
            must_survey: False: use the chunks of the last survey, if there was one.
            with_attempts: also list the attempts at those chunks.
        """
        journal = self._journal.read()
        workers = self.workers()
        chunks = self.survey(now, with_attempts=with_attempts) if must_survey or not self._chunks else self._chunks
        return Snapshot(at=now.at, plan=self._plan, journal=journal, workers=workers, chunks=chunks)

    def survey(self, now: Moment, *, with_attempts: bool = False) -> ChunksLeft:
        """List the chunks that are left; the arguments are those of `read`."""
        began = time.perf_counter()
        self._survey.refresh_all()
        self._chunks = ChunksLeft(
            at=now.at,
            open=frozenset(each.chunk for window in self._survey.windows for each in window.open),
            items_left=self._survey.items_left,
            quarantined_items=self._survey.quarantined_items,
            leases=self._survey.newest_attempts() if with_attempts else {},
        )
        self.survey_s = time.perf_counter() - began
        return self._chunks
