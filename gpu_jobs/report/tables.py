"""The report's tables: what was quarantined, which GPU workers and GPU jobs there were, and what the words mean."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from markupsafe import Markup

from gpu_jobs.durations import duration
from gpu_jobs.jobs.orders import JobOutcome
from gpu_jobs.ledger.journal import Ended, Ordered
from gpu_jobs.report import formats
from gpu_jobs.report.facts import MAX_QUARANTINE_ROWS, Facts
from gpu_jobs.report.markup import Column, Table
from gpu_jobs.telemetry.workers import GpuWorker

_MAX_ROWS = 200
_MAX_WHOLE = 30
"""Number of characters up to which a text stays on one line."""
_ROWS_AT_FIRST = 20
"""Rows of the quarantine that are shown without a click."""
_MAX_LOGS = 10
_CAUSES = {
    "error": "The workload rejected the item, or failed twice on this item alone.",
    "crashed": "The item killed the process that worked on it, more than once.",
    "stalled": "Work on the item made no progress for too long and was stopped, more than once.",
}


class Log(NamedTuple):
    """The end of the log of a GPU job that did not succeed."""

    job: Markup
    reason: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A section of the page that is a table, with a sentence above it."""

    note: str
    table: Table | None = None
    """None if there is nothing to list."""
    rest: Table | None = None
    """More rows, which are shown after a click."""
    logs: Sequence[Log] = ()


def width(values: Iterable[str]) -> str:
    """The style of a column of texts: long texts may be broken into lines, short ones may not."""
    return "wide" if max(map(len, values), default=0) > _MAX_WHOLE else "whole"


def quarantine(facts: Facts) -> Listing:
    found = facts.quarantine
    if not found.rows:
        return Listing(note="No item was quarantined.")
    total = facts.manifest.num_quarantined
    causes = ", ".join(f"{cause} {number:,}" for cause, number in found.causes)
    note = f"Items that were excluded so that the others could continue. By cause: {causes}."
    if total > MAX_QUARANTINE_ROWS:
        note += f" The first {MAX_QUARANTINE_ROWS} of {total:,}; all are in {facts.manifest.quarantine.key}."
    columns = [
        Column(title="Item", style="wide"),
        Column(title="Cause"),
        Column(title="Detail", style="wide"),
        Column(title="Attempts", style="num"),
    ]
    rows = list(map(_quarantine_row, found.rows))
    first, rest = rows[:_ROWS_AT_FIRST], rows[_ROWS_AT_FIRST:]
    return Listing(
        note=note,
        table=Table(columns=columns, rows=first),
        rest=Table(columns=columns, rows=rest) if rest else None,
    )


def _quarantine_row(row: dict[str, Any]) -> tuple[object, ...]:
    return (
        formats.clipped(row["item"], 500),
        row["cause"],
        formats.clipped(row["detail"] or "", 500),
        f"{row['attempts']:,}",
    )


def workers(facts: Facts) -> Listing:
    if not facts.workers:
        return Listing(note="No GPU worker started.")
    is_unknown = all(worker.heartbeat.gpu_use is None for worker in facts.workers)
    why = "; ".join(sorted({worker.heartbeat.gpu_note for worker in facts.workers if worker.heartbeat.gpu_note}))
    titles = ("Items", "Failed", "Items a second", "Starting", "Loading model", "Working", "Waiting")
    columns = [
        Column(title="GPU worker", style="mono"),
        Column(title="GPU job", style="mono"),
        Column(title="Platform", style="whole"),
        *(Column(title=title, style="num") for title in titles),
        Column(title="In the model", style="num"),
        *([] if is_unknown else [Column(title="Last GPU use", style="whole")]),
        Column(title="Ended because", style="wide"),
    ]
    notes = []
    if all(order.order.offer.num_gpus == 0 for order in facts.journal.orders.values()):
        notes.append("They ran without a GPU.")
    elif is_unknown:
        notes.append(f"GPU use could not be read: {why}." if why else "GPU use was not measured.")
    if len(facts.workers) > _MAX_ROWS:
        notes.append(f"The first {_MAX_ROWS} of {len(facts.workers):,}.")
    rows = [_worker_row(facts, worker, is_unknown=is_unknown) for worker in facts.workers[:_MAX_ROWS]]
    return Listing(note=" ".join(notes), table=Table(columns=columns, rows=rows))


def _worker_row(facts: Facts, worker: GpuWorker, *, is_unknown: bool) -> tuple[object, ...]:
    beat = worker.heartbeat
    order = facts.journal.orders.get(beat.order)
    seconds = beat.seconds
    if beat.status == "over":
        why = beat.reason
    elif order is None or beat.order in facts.journal.ended:
        why = f"stopped reporting; last heartbeat {formats.moment(worker.seen_at)}"
    else:
        why = f"still working at its last heartbeat, {formats.moment(worker.seen_at)}"
    return (
        beat.worker_id,
        _short(beat.order),
        order.order.offer.platform if order else "started by hand",
        f"{beat.items_done:,}",
        f"{beat.items_failed:,}",
        formats.rate(worker.heartbeat.mean_items_per_s),
        *map(duration, (seconds.starting, seconds.model_load, seconds.working, seconds.idle)),
        formats.share(seconds.infer / seconds.working) if seconds.working else "",
        *(() if is_unknown else (beat.gpu_use.words if beat.gpu_use else beat.gpu_note,)),
        why,
    )


def jobs(facts: Facts) -> Listing:
    orders = list(facts.journal.orders.values())
    if not orders:
        return Listing(note="No GPU job was ordered.")
    columns = [
        Column(title="GPU job", style="mono"),
        Column(title="Machine", style="wide"),
        Column(title="GPU workers", style="num"),
        Column(title="Ordered, UTC", style="num"),
        Column(title="Duration", style="num"),
        Column(title="Items", style="num"),
        Column(title="Spent", style="num"),
        Column(title="Ordered because", style="wide"),
        Column(title="How it ended", style="wide"),
    ]
    ended = facts.journal.ended
    rows = [_job_row(order, ended.get(order.order.name)) for order in orders[:_MAX_ROWS]]
    note = f"The first {_MAX_ROWS} of {len(orders):,}." if len(orders) > _MAX_ROWS else ""
    logs = [_log(end) for end in ended.values() if end.outcome is not JobOutcome.SUCCEEDED and end.detail.strip()]
    return Listing(note=note, table=Table(columns=columns, rows=rows), logs=logs[-_MAX_LOGS:])


def _job_row(ordered: Ordered, end: Ended | None) -> tuple[object, ...]:
    order = ordered.order
    return (
        _short(order.name),
        f"{order.offer.platform}, {order.offer.machine}",
        f"{order.num_workers:,}",
        formats.moment(ordered.at).removesuffix(" UTC"),
        duration((end.at - ordered.at).total_seconds()) if end else "",
        f"{end.items_done:,}" if end else "",
        formats.usd(end.spent_usd) if end else f"up to {formats.usd(order.reserved_usd)}",
        ordered.reason,
        end.reason if end else "still running",
    )


def _log(end: Ended) -> Log:
    return Log(_short(end.order), end.reason, formats.clipped(end.detail.strip(), 4000))


def meanings(facts: Facts) -> list[tuple[str, str]]:
    chunks = formats.count(len(facts.plan.chunk_boundaries) - 1, "chunk")
    return [
        ("Item", "One unit of input, with a stable id. It is committed, quarantined, or still open."),
        ("Committed", "The item's results are published, or it is known to have none."),
        (
            "Quarantined",
            "The item has no results; the table Quarantine says why. Failed counts those with the cause error.",
        ),
        *((f"Cause: {cause}", _CAUSES[cause]) for cause, _ in facts.quarantine.causes if cause in _CAUSES),
        ("Open", "The item is not processed yet. Running the campaign again continues with the open items."),
        ("Chunk", f"Consecutive items that a GPU worker processes together. The campaign began with {chunks}."),
        ("Attempt", "One GPU worker's try to process one chunk."),
        (
            "GPU job",
            "One order to a platform to start a number of GPU workers. Its number is that in the campaign's journal.",
        ),
        (
            "GPU worker",
            "One process or container that processes chunks until none are left. After a restart it has a new name.",
        ),
        ("Wall time", "Time from the opening of the campaign to its close; the sum, if it was opened more than once."),
        (
            "Items a second",
            "At the top: settled items divided by wall time. For a GPU worker: divided by the seconds it worked.",
        ),
        ("Spent", "Hourly price, multiplied by GPU workers and by hours from order to end. An estimate, not a bill."),
        ("Starting", "Time until a GPU worker's code runs. After that it loads the model, works, or waits for work."),
        ("In the model", "Share of the working time in which results were computed. In the rest it waited for input."),
        (
            "Timeline",
            "A bar ends when its chunk is settled. It begins when the chunk is leased, or when the bar before it ends.",
        ),
    ]


def _short(order: str) -> Markup:
    """The number of a GPU job; its full name is shown under the mouse pointer."""
    if not order:
        return Markup()
    return Markup('<span title="{}">{}</span>').format(order, order.rpartition("-")[2])
