"""The one path that all flows share: split, dispatch, collect, report. How it ends, the campaign alone decides."""

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
from gpu_jobs.campaign.collect import Manifest
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
_LAST_WORD_S = 4.0
"""For task runs of an interrupted flow to end; stopping GPU jobs has used up most of the 30 s that Prefect gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignSummary:
    """What a flow returns."""

    campaign: str
    """Where it is: a folder or gs://bucket/prefix; "" if there was nothing new to do."""
    manifest: str = ""
    """Key of what was published, under `campaign`."""
    num_items: int = 0
    num_committed: int = 0
    num_quarantined: int = 0
    num_open: int = 0
    spent_usd: float = 0.0
    """By all flow runs of the campaign."""
    report: str = ""
    """Where the report is; "" if it could not be written."""


def follow_jobs() -> TaskRunner[Any]:
    """The task runner of every flow: follows so many GPU jobs at once, later ones when earlier ones are over."""
    return ThreadPoolTaskRunner(max_workers=_MAX_FOLLOWED_JOBS)


def run_campaign(parameters: CampaignParameters, *, tidy: Callable[[Campaign], None] | None = None) -> CampaignSummary:
    """Run a campaign, or go on with it; for the main thread of a flow, which must return what this returns.

    Args:
        parameters: what to do.
        tidy: called once all of it is published.

    Raises:
        RefusedError: what is wrong with which parameter; nothing was started.
        CampaignClosedError: the campaign ended incomplete; what is settled was published as a partial result.
        SupersededError: another flow run took the campaign over.
    """
    try:
        spec = parameters.spec(flow_run.scheduled_start_time)
        earlier = EarlierCampaigns(spec.store_root)
        campaign = split(spec, parameters.policy, earlier, return_state=True).result()
        if campaign is None:
            return end_in(Completed(message="nothing new", data=CampaignSummary(campaign="")))
        label_flow_run(campaign)
        is_free = not any(offer.usd_per_hour for offer in known_offers(parameters.policy.platforms))
        is_foretold = is_free or forecast(campaign, parameters.policy, earlier) is not None
        first, last = _dispatch(campaign, parameters.policy, earlier, is_foretold=is_foretold)
    except RefusedError as error:
        return end_in(Failed(message=f"refused: {error}", data=error))
    except SupersededError as error:
        return end_in(Cancelled(message=f"another flow run took over: {error}", data=error))
    return _publish(campaign, first, last, tidy)


def _dispatch(
    campaign: Campaign, policy: Policy, earlier: EarlierCampaigns, *, is_foretold: bool
) -> tuple[Progress, Progress]:
    """Run the loop to its end; return its first look and its last. A forecast follows the first items, if none came."""
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
                followers.tell(progress.jobs)
                display.show(progress)
                if not is_foretold and any(job.items_done and job.usd for job in progress.jobs):
                    is_foretold = True
                    forecast(campaign, policy, earlier)
            assert first is not None
            display.show(progress, is_last=True)
        except SupersededError:
            followers.leave("another flow run took over; the GPU job goes on under it")
            raise
        except BaseException as error:
            followers.leave(f"the flow run was interrupted by {type(error).__name__}")
            turns.throw(error)  # unless it came from there: stops all GPU jobs, then raises it again
            raise
        finally:
            followers.wait()
    return first, progress


class _Followers:
    """A task run for each GPU job that the loop has seen."""

    def __init__(self) -> None:
        self._by_order: dict[str, Follower] = {}
        self._futures: list[PrefectFuture[str]] = []

    def tell(self, jobs: Sequence[JobStatus]) -> None:
        for job in jobs:
            if job.order not in self._by_order:
                self._by_order[job.order] = Follower()
                self._futures.append(gpu_job.submit(job.order, self._by_order[job.order]))
            self._by_order[job.order].tell(job)

    def leave(self, reason: str) -> None:
        for follower in self._by_order.values():
            follower.leave(reason)

    def wait(self) -> None:
        """Let the task runs end; their failures are their own."""
        self.leave("the campaign ended first")
        for future in self._futures:
            future.wait(timeout=_LAST_WORD_S)


def _publish(
    campaign: Campaign, first: Progress, last: Progress, tidy: Callable[[Campaign], None] | None
) -> CampaignSummary:
    """Collect and report, whole or partial, and say how it ended."""
    snapshot = campaign.snapshot()  # the only one: everything below is computed from it
    manifest = collect(campaign, snapshot.workers)
    written = report(campaign, manifest, snapshot, return_state=True)
    page = written.result() if written.is_completed() else None  # an outcome without a report is still one
    outcome = _outcome(manifest, first, last)
    scored = score_of(campaign, snapshot)
    show_summary(_name(campaign), summary(campaign.store.uri, snapshot, manifest, page, outcome, scored=scored))
    get_run_logger().info(outcome)
    if scored:
        get_run_logger().info("the forecast against the outcome: %s", scored)
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
            f"closed before the end: {last.closed}. So far {counts}, {manifest.num_open} open, published as a partial "
            "result; start the flow again with the same dataset and parameters to resume (limits may differ)"
        )
    if first.is_complete:
        return f"nothing to do: all {manifest.num_items} items were settled before: {counts}"
    return f"every item is settled: {counts}"


def _name(campaign: Campaign) -> str:
    return campaign.store.uri.rpartition("/")[2]
