"""Shows a running campaign: artifacts, events, log lines, and a progress bar if there is a terminal."""

import logging
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from prefect.logging import get_run_logger
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.theme import Theme

from gpu_jobs.campaign.progress import Progress
from gpu_jobs.durations import duration
from gpu_jobs.errors import SupersededError
from tasks.artifacts import JobsTable, ProgressArtifact
from tasks.curves import CurvesArtifact
from tasks.events import Events

_LOG_EVERY_S = 10.0
_LOG_BESIDE_BAR_EVERY_S = 60.0
_MAX_DOING = 4


class Display:
    """Shows the progress of a campaign in several ways, each at its own pace. A context manager, for the bar."""

    def __init__(
        self,
        uri: str,
        budget_usd: float | None = None,
        *,
        curves: CurvesArtifact | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`curves` shows what long items measure; None if the campaign has none."""
        campaign = uri.rpartition("/")[2]
        self._artifact = ProgressArtifact(campaign, clock=clock)
        self._table = JobsTable(uri, clock=clock)
        self._events = Events(uri, budget_usd, clock=clock)
        self._curves = curves
        self._clock = clock
        self._last: Progress | None = None
        self._logger = get_run_logger()
        self._bar = _bar() if sys.stderr.isatty() else None
        self._row = self._bar.add_task(campaign, total=None, status="") if self._bar else None
        self._log_due_at = 0.0
        self._logged = ""
        self._open = ExitStack()

    def __enter__(self) -> Self:
        if self._bar:
            self._open.enter_context(self._bar.console.use_theme(Theme()))  # Prefect's theme lacks the bar's styles
            self._open.enter_context(self._bar)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        if error is not None and not isinstance(error, SupersededError):
            self._events.closed(f"interrupted by {type(error).__name__}", self._last)

    def show(self, progress: Progress, *, is_last: bool = False) -> None:
        """Show one turn's progress; `is_last` also shows what would otherwise wait."""
        status = status_line(progress)
        if self._bar and self._row is not None:
            self._bar.update(self._row, total=progress.num_items, completed=progress.items_done, status=status)
        self._log(
            f"{progress.items_done} of {progress.num_items} items, {status}: {progress.decision}", is_last=is_last
        )
        self._artifact.show(progress, is_last=is_last)
        self._table.show(progress.jobs, is_last=is_last)
        if self._curves:
            self._curves.show(is_last=is_last)
        self._events.report(progress, is_last=is_last)
        self._last = progress
        if is_last:
            self._events.closed(progress.closed, progress)

    def _log(self, line: str, *, is_last: bool) -> None:
        if line == self._logged or (self._clock() < self._log_due_at and not is_last):
            return
        self._logger.info(line)
        self._logged = line
        self._log_due_at = self._clock() + (_LOG_BESIDE_BAR_EVERY_S if self._bar else _LOG_EVERY_S)


def status_line(progress: Progress) -> str:
    """Summarise pace, time left, GPU workers, quarantine and dollars in a few words."""
    rate = sum(job.items_per_s for job in progress.jobs)
    workers = sum(job.workers_alive for job in progress.jobs)
    left = progress.num_items - progress.items_done
    words = [f"{rate:.3g} items/s"]
    if rate and left:
        words.append(f"{duration(left / rate)} left")
    words.append(f"{workers} GPU worker{'' if workers == 1 else 's'}")
    if progress.quarantined_items:
        words.append(f"{progress.quarantined_items} quarantined")
    words.append(f"${progress.spent_usd:.2f}")
    words += [job.doing for job in progress.jobs if job.doing][:_MAX_DOING]
    return ", ".join(words)


def _bar() -> Bar:
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        console=_console(),
    )


def _console() -> Console:
    """Return Prefect's console, so that its log lines appear above the bar and do not break it."""
    consoles = [
        handler.console for handler in logging.getLogger().handlers if isinstance(handler, PrefectConsoleHandler)
    ]
    return consoles[0] if consoles else Console(stderr=True)
