"""What the loop observes: one snapshot per turn, and what can only be seen by comparing it with earlier ones."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from gpu_jobs.campaign.progress import STARTING, Progress, progress_of
from gpu_jobs.campaign.views import lease_views, order_end
from gpu_jobs.dispatch import CampaignView, Decision, JobView
from gpu_jobs.jobs.offers import OfferKey
from gpu_jobs.jobs.orders import Observation, Phase, Policy
from gpu_jobs.ledger.journal import Journal, Ordered
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Plan
from gpu_jobs.telemetry.measure import evidence_from, hedged_usd
from gpu_jobs.telemetry.samples import Evidence
from gpu_jobs.telemetry.snapshot import Moment, Snapshot, SnapshotReader
from gpu_jobs.telemetry.workers import GpuWorkers

_SURVEY_SHARE = 0.1
"""The largest share of the loop's time that surveys of chunks may take; with many chunks they are less frequent."""
_MIN_SURVEY_PAUSE_S = 1.0
_Marks = tuple[tuple[int, int, int], ...]


class Observer:
    """Observes one campaign, turn by turn."""

    def __init__(
        self, ledger: Ledger, plan: Plan, policy: Policy, journal: Journal, earlier: Mapping[OfferKey, Evidence]
    ) -> None:
        """`earlier` holds what other campaigns measured, by offer."""
        self._ledger = ledger
        self._policy = policy
        self._earlier = earlier
        self._reader = SnapshotReader(ledger, plan, journal)
        self._survey_due_s = float("-inf")
        self._last_progress: dict[str, tuple[_Marks, float]] = {}
        self._settled_before: int | None = None
        self._items_done = 0

    def workers(self) -> GpuWorkers:
        """Read the newest heartbeats of all GPU workers."""
        return self._reader.workers()

    def look(self, now: Moment, *, must_survey: bool) -> Snapshot:
        """Read what the store says now; the remaining chunks are read only if that is due."""
        is_due = must_survey or now.monotonic_s >= self._survey_due_s
        snapshot = self._reader.read(now, must_survey=is_due, with_attempts=True)
        if is_due:
            pause_s = max(_MIN_SURVEY_PAUSE_S, self._reader.survey_s / _SURVEY_SHARE)
            self._survey_due_s = now.monotonic_s + pause_s
        if self._settled_before is None:
            settled = snapshot.plan.num_items - snapshot.chunks.items_left
            self._settled_before = settled - _items_done(snapshot.workers)
        return snapshot

    def survey_again(self, snapshot: Snapshot, now: Moment) -> Snapshot:
        """Return the snapshot with the chunks that are left now, unless this look has listed them."""
        if snapshot.chunks.at == now.at:
            return snapshot
        return replace(snapshot, chunks=self._reader.survey(now, with_attempts=True))

    def view(self, snapshot: Snapshot, seen: Mapping[str, Observation], now: Moment) -> CampaignView:
        """Return what `decide` is given."""
        journal, workers, chunks = snapshot.journal, snapshot.workers, snapshot.chunks
        live = journal.live_orders
        jobs = [
            self._job_view(journal.orders[order.name], workers, seen.get(order.name, STARTING), now) for order in live
        ]
        is_tail = len(chunks.open) <= sum(job.workers_alive for job in jobs)
        return CampaignView(
            num_items=snapshot.plan.num_items,
            items_left=chunks.items_left,
            quarantined_items=chunks.quarantined_items,
            chunks_left=len(chunks.open),
            exhausted_chunk=chunks.exhausted(self._policy.max_attempts),
            jobs=jobs,
            ends=[order_end(workers, journal.orders[end.order], end) for end in journal.ends_of_opening],
            leases=lease_views(snapshot, self._ledger.hedged()) if is_tail else (),
            evidence=evidence_from(journal, workers, self._earlier),
            opened_for_s=_age_s(journal.opened.at, now) if journal.opened else 0.0,
            reserved_usd=sum(order.reserved_usd for order in live),
            spent_usd=sum(end.spent_usd for end in journal.ended.values()),
            hedged_usd=hedged_usd(journal, workers),
            closed=journal.closed.reason if journal.closed else "",
            closed_for_s=_age_s(journal.closed.at, now) if journal.closed else 0.0,
        )

    def hedge(self, snapshot: Snapshot, chunk_id: str, reason: str) -> None:
        """Allow a second attempt at a chunk that a GPU worker holds."""
        chunk = Chunk.parse(chunk_id)
        self._ledger.hedge(chunk, snapshot.chunks.leases[chunk].number, reason)

    def progress(self, snapshot: Snapshot, seen: Mapping[str, Observation], decision: Decision) -> Progress:
        """Return what people are shown; the number of items done never falls from one turn to the next."""
        num_items, items_left = snapshot.plan.num_items, snapshot.chunks.items_left
        computed = (self._settled_before or 0) + _items_done(snapshot.workers)
        at_most = num_items if items_left == 0 else num_items - 1
        self._items_done = max(self._items_done, num_items - items_left, min(computed, at_most))
        return progress_of(snapshot, seen, decision, items_done=self._items_done)

    def _job_view(self, ordered: Ordered, workers: GpuWorkers, seen: Observation, now: Moment) -> JobView:
        name = ordered.order.name
        found = workers.of(name)
        return JobView(
            order=name,
            offer=ordered.order.offer,
            num_workers=ordered.order.num_workers,
            workers_alive=seen.workers_alive,
            is_starting=seen.phase is Phase.STARTING,
            age_s=_age_s(ordered.at, now),
            items_done=workers.items_done_by(name) + workers.checkpoints_by(name),
            has_lived=bool(found),
            workers_idle=sum(worker.heartbeat.status == "idle" for worker in found),
            silent_s=self._silent_s(name, workers, now),
        )

    def _silent_s(self, order: str, workers: GpuWorkers, now: Moment) -> float:
        """Return seconds since the last progress, or since the first heartbeat."""
        marks = tuple(
            (each.heartbeat.items_done, each.heartbeat.checkpoints, each.heartbeat.progress_marks)
            for each in workers.of(order)
        )
        before, since = self._last_progress.get(order, ((), now.monotonic_s))
        if marks != before or not marks:
            since = now.monotonic_s
        self._last_progress[order] = (marks, since)
        return now.monotonic_s - since


def _items_done(workers: GpuWorkers) -> int:
    return sum(worker.heartbeat.items_done for worker in workers)


def _age_s(since: datetime, now: Moment) -> float:
    return (now.at - since).total_seconds()
