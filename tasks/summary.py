"""The outcome of a campaign as one Markdown page: counts, costs by class, timeline, and links to the results."""

from collections.abc import Sequence
from pathlib import PurePosixPath

import polars as pl

from gpu_jobs.campaign.manifest import Manifest, OutputFile
from gpu_jobs.campaign.progress import Progress, cost_frame, progress_of
from gpu_jobs.jobs.costs import by_class, to_cents
from gpu_jobs.report import Report
from gpu_jobs.telemetry.rightsizing import advice_by_offer
from gpu_jobs.telemetry.snapshot import Snapshot

_MAX_LISTED = 20
_CLASSES = {
    "useful": "working on items",
    "starting": "starting",
    "model_load": "loading the model",
    "idle": "waiting for items, or billed after their end",
    "retry": "doing work that failed and was repeated",
    "preempted": "doing work that was lost when they were stopped",
    "hedged": "doing work that another GPU worker finished first",
    "quarantined": "working on items that gave no rows",
}
_PAID_WORK = "useful"


def summary(
    uri: str, snapshot: Snapshot, manifest: Manifest, report: Report | None, outcome: str, *, scored: str = ""
) -> str:
    """Write the page.

    Args:
        uri: address of the campaign.
        snapshot: what its store says at the end of the flow run.
        manifest: what was published.
        report: the HTML report; None if it could not be written.
        outcome: how the flow run ended, in a sentence.
        scored: how good the forecast was; "" if there was none.
    """
    progress = progress_of(snapshot)
    cost = cost_frame(snapshot.journal, snapshot.workers, snapshot.at)
    kind = "Outputs" if manifest.is_complete else "Outputs so far (a partial result)"
    return "\n".join(
        [
            f"**{outcome}**",
            "",
            *table(("campaign", link(uri)), _facts(uri, progress, manifest, report)),
            "",
            *_cost(by_class(cost)),
            *[
                line
                for advice in [advice_by_offer(snapshot.journal, snapshot.workers)]
                if advice
                for line in (*advice, "")
            ],
            *(["### Forecast against outcome", "", scored, ""] if scored else []),
            *(["### Timeline", "", f"![one lane for each GPU worker]({report.timeline})", ""] if report else []),
            f"### {kind}",
            "",
            *_outputs(uri, manifest.outputs),
            "",
            f"Made by {', '.join(f'{package} {version}' for package, version in manifest.versions.items())}.",
        ]
    )


def link(uri: str) -> str:
    """Return a Markdown link if a browser can open the address, else the address alone."""
    if not uri.startswith("gs://"):
        return f"`{uri}`"
    path = uri.removeprefix("gs://")
    is_object = PurePosixPath(path).suffix in (".html", ".parquet", ".json")
    host = "storage.cloud.google.com" if is_object else "console.cloud.google.com/storage/browser"
    return f"[{uri}](https://{host}/{path})"


def _facts(uri: str, progress: Progress, manifest: Manifest, report: Report | None) -> list[tuple[str, str]]:
    return [
        ("report", link(report.uri) if report else "not written"),
        ("workload", manifest.workload),
        ("dataset", manifest.dataset),
        ("items", f"{manifest.num_items:,}"),
        ("committed", f"{manifest.num_committed:,}"),
        ("quarantined", f"{manifest.num_quarantined:,}: {link(f'{uri}/{manifest.quarantine.key}')}"),
        ("open", f"{manifest.num_open:,}"),
        ("spent", f"${progress.spent_usd:.2f}, an estimate"),
        ("GPU jobs of this flow run", str(len(progress.jobs))),
    ]


def _cost(classes: pl.DataFrame) -> list[str]:
    """Show what GPU worker seconds and dollars were spent on; all except work on items is waste."""
    if not classes["seconds"].sum():
        return []
    work = classes.filter(pl.col("class") == _PAID_WORK)
    wasted = 1 - work["share"].item()
    cents = to_cents(classes["usd"].to_list())
    rows = [
        (_CLASSES[row["class"]], f"{row['seconds']:,.1f}", f"{row['share']:.0%}", f"${paid / 100:.2f}")
        for row, paid in zip(classes.iter_rows(named=True), cents, strict=True)
        if row["seconds"]
    ]
    total = ("**all**", f"{classes['seconds'].sum():,.1f}", "100%", f"${sum(cents) / 100:.2f}")
    words = (
        f"Over all flow runs of the campaign, {wasted:.0%} of the billed GPU worker seconds were not spent on items."
    )
    header = ("GPU workers were", "seconds", "share", "dollars")
    return ["### Cost and waste", "", words, "", *table(header, [*rows, total]), ""]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [_line(header), _line(["-"] * len(header)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _outputs(uri: str, files: Sequence[OutputFile]) -> list[str]:
    listed = [
        f"- {link(f'{uri}/{file.key}')}: {file.num_rows:,} rows, {file.num_bytes / 1e6:.1f} MB"
        for file in files[:_MAX_LISTED]
    ]
    more = len(files) - _MAX_LISTED
    return [*listed, *([f"- and {more} more"] if more > 0 else [])]
