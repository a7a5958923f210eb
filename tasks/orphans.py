"""Report orphans to Prefect: a table, and an event for each orphan that was ended."""

from collections.abc import Sequence

from prefect.artifacts import create_table_artifact
from prefect.events import emit_event

from gpu_jobs.campaign.reaper import Orphan


def show_orphans(orphans: Sequence[Orphan]) -> None:
    """Show a table of the orphans, why each is one, and what it has cost; the table is empty if there are none."""
    create_table_artifact(
        key="orphans",
        table=[_row(orphan) for orphan in orphans],
        description=f"{len(orphans)} GPU jobs without an owner" if orphans else "No GPU job was without an owner",
    )


def emit_orphans(orphans: Sequence[Orphan]) -> None:
    """Emit one event per orphan that was ended, so that automations can raise an alarm."""
    for orphan in orphans:
        if orphan.has_ended:
            emit_event(
                "fanfold.orphan.ended",
                resource={"prefect.resource.id": f"fanfold.gpu-job.{orphan.order}"},
                payload={
                    "campaign": orphan.campaign,
                    "platform": orphan.platform,
                    "why": orphan.why,
                    "usd": orphan.usd,
                },
            )


def _row(orphan: Orphan) -> dict[str, str | float]:
    return {
        "GPU job": orphan.order,
        "platform": orphan.platform,
        "campaign": orphan.campaign or "unknown",
        "why": orphan.why,
        "dollars": "unknown" if orphan.usd is None else round(orphan.usd, 4),
        "ended": "yes" if orphan.has_ended else "no",
    }
