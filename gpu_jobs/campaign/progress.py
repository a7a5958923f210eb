"""A campaign's progress, for people: computed from one snapshot. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from gpu_jobs.dispatch import Decision
from gpu_jobs.jobs.costs import CLASSES, BilledSeconds, WorkerSeconds
from gpu_jobs.jobs.orders import JobOutcome, Observation, Phase
from gpu_jobs.ledger.journal import Ended, JournalState, Ordered
from gpu_jobs.telemetry.snapshot import Snapshot
from gpu_jobs.telemetry.workers import GpuWorkers

COST_COLUMNS: dict[str, Any] = {
    "order": pl.String,
    "platform": pl.String,
    "gpu": pl.String,
    "workers": pl.Int64,
    "status": pl.String,
    "items": pl.Int64,
    "usd": pl.Float64,
    "billed_s": pl.Float64,
    **{f"{name}_s": pl.Float64 for name in CLASSES},
}
OVER = ("succeeded", "failed", "cancelled")
"""The statuses of a GPU job that has ended."""
STARTING = Observation(phase=Phase.STARTING)
NO_DECISION = Decision(actions=(), reason="")
_STATUS = {JobOutcome.SUCCEEDED: "succeeded", JobOutcome.FAILED: "failed", JobOutcome.STOPPED: "cancelled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The status of one GPU job, for people."""

    order: str
    platform: str
    gpu: str
    machine: str
    """GPU, location and mode of the offer."""
    workers: int
    """The number of GPU workers that were ordered."""
    workers_alive: int
    items_done: int
    items_failed: int
    items_per_s: float
    gpu_use: str
    """How busy the GPUs are, in words; "" if that is not known."""
    usd: float
    """Estimated cost; while the GPU job runs, its cost up to now."""
    status: str
    """One of pending, running, succeeded, failed, cancelled."""
    reason: str
    seconds: WorkerSeconds
    """Seconds of all its GPU workers, by what they were spent on."""
    has_lived: bool
    """True once at least one of its GPU workers has sent a heartbeat."""
    stall: str = ""
    """Why the GPU job appears stuck, such as "starved"; "" if it does not."""
    log: str = ""
    """The end of its log; while the GPU job runs, only if its platform shows the log."""
    doing: str = ""
    """The progress of its GPU workers with long items, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of a campaign after one turn of its loop."""

    num_items: int
    items_done: int
    """Items that are settled, or finished and not yet settled; it never falls and never exceeds `num_items`."""
    items_left: int
    """Items that were not settled when the chunks were last read."""
    quarantined_items: int
    chunks_left: int
    jobs: tuple[JobStatus, ...]
    """All GPU jobs since the campaign was last opened, in order."""
    spent_usd: float
    """Estimated cost of all GPU jobs ever; for those that run, up to now."""
    reserved_usd: float
    """The most that running GPU jobs may still cost; new GPU jobs cannot use it."""
    decision: str
    stall: str = ""
    """Why no GPU job can be started; "" if one can."""
    closed: str = ""
    """Why the campaign is closed; "" while it runs."""

    @property
    def is_complete(self) -> bool:
        return self.items_left == 0


def progress_of(
    snapshot: Snapshot,
    seen: Mapping[str, Observation] | None = None,
    decision: Decision = NO_DECISION,
    *,
    items_done: int | None = None,
) -> Progress:
    """Compute the progress of a campaign.

    Args:
        snapshot: what its store says.
        seen: what the platforms report of its GPU jobs; None: heartbeats alone are used.
        decision: what was decided in this turn.
        items_done: the number of items done, if the caller knows of more than are settled.
    """
    journal, workers, chunks = snapshot.journal, snapshot.workers, snapshot.chunks
    observed = seen_by_heartbeats(journal, workers) if seen is None else seen
    accrued_usd = _accrued_usd(journal, workers, snapshot.at)
    return Progress(
        num_items=snapshot.plan.num_items,
        items_done=snapshot.plan.num_items - chunks.items_left if items_done is None else items_done,
        items_left=chunks.items_left,
        quarantined_items=chunks.quarantined_items,
        chunks_left=len(chunks.open),
        jobs=tuple(_job_status(ordered, snapshot, observed, decision) for ordered in journal.orders_of_opening),
        spent_usd=spent_usd(journal, workers, snapshot.at),
        reserved_usd=max(0.0, sum(order.reserved_usd for order in journal.live_orders) - accrued_usd),
        decision=decision.reason,
        stall=decision.stall or "",
        closed=journal.closed.reason if journal.closed else "",
    )


def spent_usd(journal: JournalState, workers: GpuWorkers, at: datetime) -> float:
    """Estimate what all GPU jobs have cost; for those that run, up to `at`."""
    return sum(end.spent_usd for end in journal.ended.values()) + _accrued_usd(journal, workers, at)


def _accrued_usd(journal: JournalState, workers: GpuWorkers, at: datetime) -> float:
    return sum(workers.usd(journal.orders[order.name], at) for order in journal.live_orders)


def seen_by_heartbeats(journal: JournalState, workers: GpuWorkers) -> dict[str, Observation]:
    """Derive observations of live GPU jobs from heartbeats alone, for callers that cannot ask the platforms."""
    found = {}
    for order in journal.live_orders:
        if alive := sum(not worker.is_over for worker in workers.of(order.name)):
            found[order.name] = Observation(phase=Phase.RUNNING, workers_alive=alive)
    return found


def cost_frame(journal: JournalState, workers: GpuWorkers, at: datetime) -> pl.DataFrame:
    """Return one row per GPU job ever, with `COST_COLUMNS`; for those that run, up to `at`."""
    observed = seen_by_heartbeats(journal, workers)
    rows = [_cost_row(ordered, journal, workers, at, observed) for ordered in journal.orders.values()]
    return pl.DataFrame(rows, schema=COST_COLUMNS)


def _cost_row(
    ordered: Ordered, journal: JournalState, workers: GpuWorkers, at: datetime, seen: Mapping[str, Observation]
) -> dict[str, str | int | float]:
    order = ordered.order
    end = journal.ended.get(order.name)
    billed = workers.billed(ordered, end.at if end else at, is_over=end is not None)
    if end and not end.spent_usd and not workers.of(order.name):
        billed = BilledSeconds()  # it never ran
    return {
        "order": order.name,
        "platform": order.offer.platform,
        "gpu": order.offer.gpu,
        "workers": order.num_workers,
        "status": _status(end, seen.get(order.name, STARTING)),
        "items": workers.items_done_by(order.name),
        "usd": end.spent_usd if end else workers.usd(ordered, at),
        "billed_s": billed.total_s,
        **{f"{name}_s": value for name, value in billed.by_class().items()},
    }


def _job_status(ordered: Ordered, snapshot: Snapshot, seen: Mapping[str, Observation], decision: Decision) -> JobStatus:
    order, workers = ordered.order, snapshot.workers
    end = snapshot.journal.ended.get(order.name)
    observation = seen.get(order.name, STARTING)
    beats = [worker.heartbeat for worker in workers.of(order.name)]
    alive = [beat for beat in beats if beat.status != "over"] if end is None else []
    return JobStatus(
        order=order.name,
        platform=order.offer.platform,
        gpu=order.offer.gpu,
        machine=order.offer.machine,
        workers=order.num_workers,
        workers_alive=observation.workers_alive if end is None else 0,
        items_done=sum(beat.items_done for beat in beats),
        items_failed=sum(beat.items_failed for beat in beats),
        items_per_s=sum(beat.items_per_s for beat in alive),
        gpu_use="; ".join(sorted({beat.gpu_use.words for beat in beats if beat.gpu_use})),
        doing="; ".join(filter(None, (beat.doing for beat in alive))),
        usd=end.spent_usd if end else workers.usd(ordered, snapshot.at),
        status=_status(end, observation),
        reason=_reason(end, workers.reasons(order.name)),
        seconds=workers.seconds(order.name),
        has_lived=bool(beats),
        log=(end or observation).detail,
        stall="" if end else decision.stalls.get(order.name, ""),
    )


def _status(end: Ended | None, seen: Observation) -> str:
    if end is None:
        return "pending" if seen.phase is Phase.STARTING else "running"
    return _STATUS[end.outcome]


def _reason(end: Ended | None, of_workers: str) -> str:
    """Join the platform's reason, unless the GPU job succeeded, with the reasons of its GPU workers."""
    words = [end.reason] if end and end.outcome is not JobOutcome.SUCCEEDED else []
    return ": ".join(filter(None, [*words, of_workers]))
