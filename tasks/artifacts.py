"""Artifacts that show a campaign in Prefect's UI. They are for people only: a failure is only logged."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from gpu_jobs.campaign.progress import OVER, JobStatus, Progress
from gpu_jobs.ledger import keys
from tasks.summary import link

Row = dict[str, str | int]

_MIN_PAUSE_S = 5.0
_MAX_JOBS = 100
_MAX_REASON = 200
"""The most characters of a reason in a table."""


class _Pace:
    """Limits updates to one every five seconds, and to those that change something."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._shown: object = None
        self._due_at = 0.0

    def is_due(self, shown: object, *, is_last: bool) -> bool:
        if shown == self._shown or (self._clock() < self._due_at and not is_last):
            return False
        self._due_at = self._clock() + _MIN_PAUSE_S
        return True

    def passed(self, shown: object) -> None:
        self._shown = shown


class ProgressArtifact:
    """The percentage of items done. It calls the API at most every five seconds, however often `show` is called."""

    def __init__(self, campaign: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._campaign = campaign
        self._id: UUID | None = None
        self._pace = _Pace(clock)

    def show(self, progress: Progress, *, is_last: bool = False) -> None:
        percent = round(100 * progress.items_done / progress.num_items, 1)
        if not self._pace.is_due(percent, is_last=is_last):
            return
        with _only_logging("progress"):
            if self._id is None:
                key = f"{self._campaign}-progress"
                text = f"Items of {self._campaign} that are done, in percent"
                self._id = cast("UUID", create_progress_artifact(progress=percent, key=key, description=text))
            else:
                update_progress_artifact(artifact_id=self._id, progress=percent)
            self._pace.passed(percent)


class JobsTable:
    """A table with one row per GPU job of this flow run, updated in place at most every five seconds."""

    def __init__(self, uri: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._uri = uri
        self._id: UUID | None = None
        self._pace = _Pace(clock)

    def show(self, jobs: Sequence[JobStatus], *, is_last: bool = False) -> None:
        rows = _rows(jobs)
        if not self._pace.is_due(rows, is_last=is_last):
            return
        with _only_logging("GPU jobs"):
            if self._id is None:
                key = f"{self._uri.rpartition('/')[2]}-gpu-jobs"
                self._id = cast("UUID", create_table_artifact(key=key, table=rows, description=self._about(len(jobs))))
            else:
                update_table_artifact(self._id, rows, self._about(len(jobs)))
            self._pace.passed(rows)

    def _about(self, num_jobs: int) -> str:
        some = f" (the newest {_MAX_JOBS} of {num_jobs}, running ones first)" if num_jobs > _MAX_JOBS else ""
        return (
            f"GPU jobs of this flow run{some}. Dollars are estimates. Store: {link(self._uri)}. "
            f"Report, at the end: {link(f'{self._uri}/{keys.REPORT}')}"
        )


class MarkdownArtifact:
    """A Markdown page that is updated in place at most every five seconds."""

    def __init__(self, key: str, about: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = key
        self._about = about
        self._clock = clock
        self._due_at = 0.0
        self._id: UUID | None = None
        self._shown = ""

    def show(self, make: Callable[[], str], *, is_last: bool = False) -> None:
        """Show the page that `make` returns; "" means that there is nothing to show yet."""
        if self._clock() < self._due_at and not is_last:
            return
        self._due_at = self._clock() + _MIN_PAUSE_S
        text = make()
        if not text or text == self._shown:
            return
        with _only_logging(self._about):
            if self._id is None:
                found = create_markdown_artifact(key=self._key, markdown=text, description=self._about)
                self._id = cast("UUID", found)
            else:
                _update(self._id, text, self._about)
            self._shown = text


def update_table_artifact(artifact_id: UUID, table: list[Row], description: str) -> None:
    """Update a table in place; Prefect offers this for progress artifacts only."""
    _update(artifact_id, json.dumps(table), description)


def _update(artifact_id: UUID, data: str, description: str) -> None:
    with get_client(sync_client=True) as client:
        client.update_artifact(artifact_id, ArtifactUpdate(data=data, description=description))


def show_table(key: str, rows: list[dict[str, str]], description: str) -> None:
    """Show a table that will not change."""
    with _only_logging(key):
        create_table_artifact(key=key, table=rows, description=description)


def show_summary(name: str, markdown: str) -> None:
    """Show the campaign's outcome and where its results are."""
    with _only_logging("summary"):
        create_markdown_artifact(key=f"{name}-summary", markdown=markdown, description=f"Outcome of {name}")


def _selected(jobs: Sequence[JobStatus]) -> list[JobStatus]:
    """Return all GPU jobs in order; if there are too many, the running ones, then the ended ones, newest first."""
    if len(jobs) <= _MAX_JOBS:
        return list(jobs)
    over = [job for job in jobs if job.status in OVER]
    running = [job for job in jobs if job.status not in OVER]
    return [*over, *running][: -_MAX_JOBS - 1 : -1]


def _rows(jobs: Sequence[JobStatus]) -> list[Row]:
    rows = [_row(job) for job in _selected(jobs)]
    empty = [
        name for name in ("GPU use", "doing") if not any(row[name] for row in rows)
    ]  # hidden, since the page is narrow
    return [{name: value for name, value in row.items() if name not in empty} for row in rows]


def _row(job: JobStatus) -> Row:
    is_over = job.status in OVER
    return {
        "GPU job": job.order,
        "status": f"{job.status}: {job.stall}" if job.stall else job.status,
        "platform": job.platform,
        "offer": job.machine,
        "GPU workers": str(job.workers) if is_over else f"{job.workers_alive} of {job.workers}",
        "items": job.items_done,
        "doing": job.doing,
        "items/s": "" if is_over else f"{job.items_per_s:.3g}",
        "GPU use": job.gpu_use,
        "dollars": f"{job.usd:.2f}",
        "reason": job.reason[:_MAX_REASON],
    }


@contextmanager
def _only_logging(what: str) -> Iterator[None]:
    """Log a failure to write an artifact, and continue."""
    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        get_run_logger().warning("Prefect rejected the artifact '%s': %s", what, error)
