"""The steps that all flows share: split, dispatch, collect, report. The campaign decides how a flow ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.display import Display
from flows.parameters import CampaignParameters
from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.manifest import Manifest
from gpu_jobs.campaign.progress import JobStatus, Progress
from gpu_jobs.errors import CampaignClosedError, RefusedError, SupersededError
from gpu_jobs.forecast.history import EarlierCampaigns
from gpu_jobs.forecast.history import scored as score_of
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger import keys
from gpu_jobs.platforms import known_offers
from tasks.artifacts import show_summary
from tasks.collect import collect
from tasks.curves import CurvesArtifact, measures
from tasks.flow_runs import label_flow_run, leave_if_suspended, platform_slots
from tasks.forecast import forecast
from tasks.gpu_job import Follower, gpu_job
from tasks.outcome import end_in
from tasks.report import report
from tasks.split import split
from tasks.summary import summary

__all__ = ["CampaignParameters", "CampaignSummary", "follow_jobs", "run_campaign"]

_MAX_FOLLOWED_JOBS = 64
_LAST_STATUS_S = 4.0
"""How many seconds task runs of an interrupted flow get to end; most of Prefect's 30 s went into stopping GPU jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignSummary:
    """The result of a flow."""

    campaign: str
    """Address of the campaign, a folder or gs://bucket/prefix; "" if there was nothing new to do."""
    manifest: str = ""
    """Key of the published manifest, relative to `campaign`."""
    num_items: int = 0
    num_committed: int = 0
    num_quarantined: int = 0
    num_open: int = 0
    spent_usd: float = 0.0
    """Estimated dollars spent by all flow runs of the campaign."""
    report: str = ""
    """Address of the report; "" if it could not be written."""


def follow_jobs() -> TaskRunner[Any]:
    """Return the task runner of every flow, which limits how many GPU jobs are followed at the same time."""
    return ThreadPoolTaskRunner(max_workers=_MAX_FOLLOWED_JOBS)


def run_campaign(parameters: CampaignParameters, *, tidy: Callable[[Campaign], None] | None = None) -> CampaignSummary:
    """Run a campaign or resume it. Call it in the main thread of a flow, and return its result from the flow.

    Args:
        parameters: what the person has requested.
        tidy: called after the complete result was published.

    Raises:
        RefusedError: a parameter is wrong; the error names it, and nothing was started.
        CampaignClosedError: the campaign ended before all items were settled; a partial result was published.
        SupersededError: another flow run took over the campaign.
    """
    try:
        spec = parameters.spec(flow_run.scheduled_start_time)
        earlier = EarlierCampaigns(spec.store_root)
        campaign = split(spec, parameters.policy, earlier, return_state=True).result()
        if campaign is None:
            return end_in(Completed(message="no new items", data=CampaignSummary(campaign="")))
        label_flow_run(campaign)
        is_free = not any(offer.usd_per_hour for offer in known_offers(parameters.policy.platforms))
        has_forecast = is_free or forecast(campaign, parameters.policy, earlier) is not None
        first, last = _dispatch(campaign, parameters.policy, earlier, has_forecast=has_forecast)
    except RefusedError as error:
        return end_in(Failed(message=f"refused: {error}", data=error))
    except SupersededError as error:
        return end_in(
            Cancelled(message=f"another flow run took over; the campaign continues there: {error}", data=error)
        )
    return _publish(campaign, first, last, tidy)


def _dispatch(
    campaign: Campaign, policy: Policy, earlier: EarlierCampaigns, *, has_forecast: bool
) -> tuple[Progress, Progress]:
    """Run the loop to its end; return its first and its last progress. Forecast after the first items if not before."""
    first: Progress | None = None
    followers = _Followers()
    evidence = {key: found.evidence for key, found in earlier.samples(campaign).items() if found.items_per_s}
    turns = campaign.run(policy, owner=flow_run.id or "", earlier=evidence)
    curves = CurvesArtifact(campaign) if measures(campaign) else None
    display = Display(campaign.store.uri, policy.budget_usd, curves=curves)
    with platform_slots(policy.platforms), display:
        try:
            for progress in turns:
                leave_if_suspended()
                first = first or progress
                followers.notify(progress.jobs)
                display.show(progress)
                if not has_forecast and any(job.items_done and job.usd for job in progress.jobs):
                    has_forecast = True
                    forecast(campaign, policy, earlier)
            assert first is not None
            display.show(progress, is_last=True)
        except SupersededError:
            followers.leave("another flow run took over; this job continues there")
            raise
        except BaseException as error:
            followers.leave(f"the flow run was interrupted by {type(error).__name__}")
            turns.throw(error)  # unless the loop raised it: stops all GPU jobs, then raises it again
            raise
        finally:
            followers.wait()
    return first, progress


class _Followers:
    """The task runs that follow GPU jobs, one for each."""

    def __init__(self) -> None:
        self._by_order: dict[str, Follower] = {}
        self._futures: list[PrefectFuture[str]] = []

    def notify(self, jobs: Sequence[JobStatus]) -> None:
        """Pass statuses on, and start a task run for each GPU job that has none yet."""
        for job in jobs:
            if job.order not in self._by_order:
                self._by_order[job.order] = Follower()
                self._futures.append(gpu_job.submit(job.order, self._by_order[job.order]))
            self._by_order[job.order].notify(job)

    def leave(self, reason: str) -> None:
        """End task runs that still wait, with `reason`."""
        for follower in self._by_order.values():
            follower.leave(reason)

    def wait(self) -> None:
        """Wait for the task runs to end; their failures do not matter here."""
        self.leave("the campaign ended first")
        for future in self._futures:
            future.wait(timeout=_LAST_STATUS_S)


def _publish(
    campaign: Campaign, first: Progress, last: Progress, tidy: Callable[[Campaign], None] | None
) -> CampaignSummary:
    """Publish the complete or partial result, write the report, and end the flow accordingly."""
    snapshot = campaign.snapshot()  # read once: everything below is computed from it
    manifest = collect(campaign, snapshot.workers)
    written = report(campaign, manifest, snapshot, return_state=True)
    page = written.result() if written.is_completed() else None  # without a report the outcome is still valid
    outcome = _outcome(manifest, first, last)
    scored = score_of(campaign, snapshot)
    show_summary(_name(campaign), summary(campaign.store.uri, snapshot, manifest, page, outcome, scored=scored))
    get_run_logger().info(outcome)
    if scored:
        get_run_logger().info("forecast compared with the outcome: %s", scored)
    if not manifest.is_complete:
        return end_in(Failed(message=outcome, data=CampaignClosedError(outcome)))
    if tidy is not None:
        tidy(campaign)
    result = CampaignSummary(
        campaign=campaign.store.uri,
        manifest=keys.manifest(manifest.digest),
        num_items=manifest.num_items,
        num_committed=manifest.num_committed,
        num_quarantined=manifest.num_quarantined,
        num_open=manifest.num_open,
        spent_usd=last.spent_usd,
        report=page.uri if page else "",
    )
    return end_in(Completed(message=outcome, data=result))


def _outcome(manifest: Manifest, first: Progress, last: Progress) -> str:
    counts = f"{manifest.num_committed} committed, {manifest.num_quarantined} quarantined"
    if not manifest.is_complete:
        return (
            f"closed before the end: {last.closed}. So far {counts}, {manifest.num_open} open; this was published as a "
            "partial result. To resume, start the flow again with the same dataset and parameters (limits may differ)"
        )
    if first.is_complete:
        return f"nothing to do: all {manifest.num_items} items were already settled: {counts}"
    return f"every item is settled: {counts}"


def _name(campaign: Campaign) -> str:
    return campaign.store.uri.rpartition("/")[2]
