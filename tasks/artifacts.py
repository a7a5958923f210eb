"""What Prefect's UI shows of a campaign. All of it is for the eye: a failure to show something is only logged."""

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
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from gpu_jobs.campaign import Campaign
from gpu_jobs.collect import Manifest, OutputFile
from gpu_jobs.observe import JobStatus, Progress

_MIN_PAUSE_S = 5.0
_MAX_LISTED = 20


class ProgressArtifact:
    """Percent of items done. However often it is told, it calls the API at most every five seconds."""

    def __init__(self, campaign: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._campaign = campaign
        self._clock = clock
        self._id: UUID | None = None
        self._shown = -1.0
        self._due_at = 0.0

    def show(self, progress: Progress, *, is_last: bool = False) -> None:
        percent = round(100 * progress.items_done / progress.num_items, 1)
        if percent == self._shown or (self._clock() < self._due_at and not is_last):
            return
        self._due_at = self._clock() + _MIN_PAUSE_S
        with _for_the_eye("progress"):
            if self._id is None:
                key = f"{self._campaign}-progress"
                text = f"Items of {self._campaign} that are done, in percent"
                self._id = cast("UUID", create_progress_artifact(progress=percent, key=key, description=text))
            else:
                update_progress_artifact(artifact_id=self._id, progress=percent)
            self._shown = percent


def show_jobs(campaign: str, jobs: Sequence[JobStatus]) -> None:
    """Table of the GPU jobs of one flow run."""
    with _for_the_eye("GPU jobs"):
        create_table_artifact(
            key=f"{campaign}-gpu-jobs", table=[_job_row(job) for job in jobs], description=f"GPU jobs of {campaign}"
        )


def show_summary(campaign: Campaign, progress: Progress, manifest: Manifest, report: str, outcome: str) -> None:
    """What came of the campaign, and where it is."""
    name = campaign.store.uri.rpartition("/")[2]
    with _for_the_eye("summary"):
        create_markdown_artifact(
            key=f"{name}-summary",
            markdown=summary(campaign, progress, manifest, report, outcome),
            description=f"Outcome of {name}",
        )


def summary(campaign: Campaign, progress: Progress, manifest: Manifest, report: str, outcome: str) -> str:
    """The same, as Markdown."""
    uri = campaign.store.uri
    listed = [_output_line(uri, file) for file in manifest.outputs[:_MAX_LISTED]]
    if len(manifest.outputs) > _MAX_LISTED:
        listed.append(f"- and {len(manifest.outputs) - _MAX_LISTED} more")
    versions = ", ".join(f"{package} {version}" for package, version in manifest.versions.items())
    kind = "Outputs" if manifest.is_complete else "Outputs so far (a partial result)"
    return "\n".join(
        [
            f"**{outcome}**",
            "",
            "| | |",
            "|-|-|",
            f"| workload | {manifest.workload} |",
            f"| dataset | {manifest.dataset} |",
            f"| items | {manifest.num_items} |",
            f"| committed | {manifest.num_committed} |",
            f"| quarantined | {manifest.num_quarantined} |",
            f"| open | {manifest.num_open} |",
            f"| spent | ${progress.spent_usd:.2f} |",
            f"| GPU jobs of this flow run | {len(progress.jobs)} |",
            f"| campaign | {_place(uri)} |",
            f"| report | {_place(report) if report else 'not written'} |",
            f"| quarantine | {_place(f'{uri}/{manifest.quarantine.key}')} |",
            f"| versions | {versions} |",
            "",
            f"{kind}:",
            "",
            *listed,
        ]
    )


def _output_line(uri: str, file: OutputFile) -> str:
    return f"- {_place(f'{uri}/{file.key}')}: {file.num_rows} rows, {file.num_bytes / 1e6:.1f} MB"


def _place(uri: str) -> str:
    """A link where a browser can follow it."""
    if uri.startswith("gs://"):
        return f"[{uri}](https://console.cloud.google.com/storage/browser/{uri.removeprefix('gs://')})"
    return f"`{uri}`"


def _job_row(job: JobStatus) -> dict[str, str | int | float]:
    return {
        "GPU job": job.order,
        "platform": job.platform,
        "GPU": job.gpu,
        "GPU workers": job.workers,
        "status": job.status,
        "reason": job.reason,
        "items": job.items_done,
        "error rows": job.items_failed,
        "dollars": round(job.usd, 4),
        "GPU use": job.gpu_use,
        **{f"{name}, s": round(seconds, 1) for name, seconds in sorted(job.seconds.items())},
    }


@contextmanager
def _for_the_eye(what: str) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        get_run_logger().warning("Prefect did not take the artifact '%s': %s", what, error)
