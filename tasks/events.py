"""Events that automations in Prefect can act on. docs/events.md lists them and their payloads."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from prefect.events import emit_event

from gpu_jobs.campaign.progress import OVER, JobStatus, Progress

NEAR = 0.8
"""The share of the budget at which `budget.near` is emitted."""
_QUARANTINE_PAUSE_S = 60.0
Emit = Callable[..., object]


class Events:
    """Turns the progress of a campaign into events. Their number grows with GPU jobs and minutes, not with items."""

    def __init__(
        self,
        uri: str,
        budget_usd: float | None,
        *,
        emit: Emit | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`emit` replaces Prefect's `emit_event`."""
        name = uri.rpartition("/")[2]
        self._resource = {
            "prefect.resource.id": f"fanfold.campaign.{name}",
            "prefect.resource.name": name,
            "fanfold.campaign.uri": uri,
        }
        self._emit_event: Emit = emit or emit_event
        self._clock = clock
        self._budget_usd = budget_usd
        self._was_near = False
        self._started: set[str] = set()
        self._ended: set[str] = set()
        self._quarantined: int | None = None
        self._quarantine_due_at = 0.0

    def report(self, progress: Progress, *, is_last: bool = False) -> None:
        """Emit events for what is new since the last call."""
        for job in progress.jobs:
            self._report_job(job)
        self._report_quarantine(progress, is_last=is_last)
        self._report_budget(progress.spent_usd)

    def closed(self, reason: str, progress: Progress | None) -> None:
        """Emit that the campaign has ended in this flow run, complete or not."""
        payload: dict[str, Any] = {"reason": reason, "is_complete": progress is not None and progress.is_complete}
        if progress is not None:
            payload["num_items"] = progress.num_items
            payload["items_left"] = progress.items_left
            payload["quarantined_items"] = progress.quarantined_items
            payload["spent_usd"] = round(progress.spent_usd, 4)
        self._emit("campaign.closed", payload)

    def _report_job(self, job: JobStatus) -> None:
        about = {"order": job.order, "platform": job.platform, "machine": job.machine, "workers": job.workers}
        if (job.has_lived or job.status == "running") and job.order not in self._started:
            self._started.add(job.order)
            self._emit("gpu_job.started", about)
        if job.status in OVER and job.order not in self._ended:
            self._ended.add(job.order)
            end = {"status": job.status, "reason": job.reason, "items_done": job.items_done, "usd": round(job.usd, 4)}
            self._emit("gpu_job.ended", {**about, **end})

    def _report_quarantine(self, progress: Progress, *, is_last: bool) -> None:
        total = progress.quarantined_items
        if self._quarantined is None:
            self._quarantined = total  # earlier flow runs have reported these
        if total <= self._quarantined or (self._clock() < self._quarantine_due_at and not is_last):
            return
        new = total - self._quarantined
        self._quarantined = total
        self._quarantine_due_at = self._clock() + _QUARANTINE_PAUSE_S
        self._emit("chunk.quarantined", {"items": new, "items_so_far": total, "num_items": progress.num_items})

    def _report_budget(self, spent_usd: float) -> None:
        if self._budget_usd and not self._was_near and spent_usd >= NEAR * self._budget_usd:
            self._was_near = True
            self._emit("budget.near", {"budget_usd": self._budget_usd, "spent_usd": round(spent_usd, 4)})

    def _emit(self, what: str, payload: Mapping[str, Any]) -> None:
        self._emit_event(f"fanfold.{what}", resource=self._resource, payload=dict(payload))
