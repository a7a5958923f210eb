"""End GPU jobs that nobody owns and correct the states of lost flow runs: the safety net for what cancelling missed.

python -m flows.reap_orphans --store-root gs://bucket/prefix --dry-run true
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import CliApp

from flows.lost_runs import Patience, put_states_right
from flows.parameters import PlatformName
from gpu_jobs.campaign.reaper import Orphan, reap
from gpu_jobs.errors import FanfoldError, StoreError
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.platforms import open_platform
from tasks.orphans import emit_orphans, show_orphans
from tasks.outcome import end_in


class ReapOrphans(BaseModel):
    """Where to look for GPU jobs that nobody owns, and whether to end them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store_root: str = Field(
        default="./fanfold-store", title="Store", description="Folder or gs://bucket/prefix that holds campaigns"
    )
    platforms: list[PlatformName] = Field(
        default=[*Policy().platforms],
        title="Platforms",
        description="All platforms on which GPU jobs of this store may run. local: this machine",
        min_length=1,
    )
    dry_run: bool = Field(default=False, title="Dry run", description="Only report what would be ended")
    cancelling_minutes: float = Field(
        default=5,
        gt=0,
        title="Cancelling, minutes",
        description="A flow run that is Cancelling for longer has lost its Prefect worker, and is set to Cancelled",
    )
    silent_minutes: float = Field(
        default=10,
        gt=0,
        title="Silent, minutes",
        description="A flow run that sends no heartbeat for longer has lost its process; it is set to Crashed",
    )

    @property
    def patience(self) -> Patience:
        """Return how long to wait before a flow run counts as lost."""
        return Patience(
            cancelling=timedelta(minutes=self.cancelling_minutes), silent=timedelta(minutes=self.silent_minutes)
        )


@flow(name="reap-orphans")
def reap_orphans(reaper: ReapOrphans) -> list[Orphan]:
    """Stop campaigns whose flow run has ended, end GPU jobs that no campaign owns, correct the states of flow runs.

    If a store or a platform cannot be read, the flow run fails, as an alarm: orphans there are unknown.
    """
    problems: list[str] = []
    found: list[Orphan] = []
    for name in reaper.platforms:
        with _noted(problems, name):
            platform = open_platform(name)
            if not reaper.dry_run:
                put_states_right(reaper.store_root, [platform], reaper.patience)
            found += reap(reaper.store_root, [platform], datetime.now(UTC), is_dry_run=reaper.dry_run)
    show_orphans(found)
    emit_orphans(found)
    return end_in(_outcome(found, problems, is_dry_run=reaper.dry_run))


@contextmanager
def _noted(problems: list[str], platform: str) -> Iterator[None]:
    """Record an error and continue with the next platform; the flow run fails at its end."""
    try:
        yield
    except (FanfoldError, OSError, KeyError) as error:
        kind = "the store cannot be read" if isinstance(error, StoreError) else f"{platform} cannot be searched"
        get_run_logger().error("%s: %s", kind, error)
        problems.append(f"{kind}: {error}")


def _outcome(found: Sequence[Orphan], problems: Sequence[str], *, is_dry_run: bool) -> State[list[Orphan]]:
    ended = sum(orphan.has_ended for orphan in found)
    usd = sum(orphan.usd or 0.0 for orphan in found)
    counts = (
        f"{len(found)} orphans found, {'none ended: a dry run' if is_dry_run else f'{ended} ended'}, cost ${usd:.2f}"
    )
    left = [orphan.order for orphan in found if not (orphan.has_ended or is_dry_run)]
    trouble = [*problems, *([f"end not confirmed: {', '.join(left)}"] if left else [])]
    if trouble:
        return Failed(message="; ".join([*trouble, counts]), data=StoreError("; ".join(trouble)))
    return Completed(message=counts if found else "no orphans", data=list(found))


if __name__ == "__main__":
    reap_orphans(CliApp.run(ReapOrphans))
    sys.exit(0)
