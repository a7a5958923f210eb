"""What can be seen of a running campaign: the survey of its chunks, its GPU workers' heartbeats, its GPU jobs."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from gpu_jobs.campaign.views import lease_views, order_end
from gpu_jobs.dispatch import CampaignView, Decision, JobView
from gpu_jobs.jobs.costs import CLASSES
from gpu_jobs.jobs.offers import OfferKey
from gpu_jobs.jobs.orders import Observation, Phase, Policy
from gpu_jobs.ledger.heartbeats import HeartbeatReader
from gpu_jobs.ledger.journal import Ended, JournalState, Ordered
from gpu_jobs.ledger.ledger import Heartbeat, Ledger, Plan
from gpu_jobs.ledger.open_chunks import Lease, Survey
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.telemetry.samples import Evidence
from gpu_jobs.telemetry.workers import Lives

_SURVEY_SHARE = 0.1
"""Of the loop's time that surveys may take: with many chunks they come less often."""
_MIN_SURVEY_PAUSE_S = 1.0
COST_COLUMNS: dict[str, Any] = {
    "order": pl.String,
    "platform": pl.String,
    "gpu": pl.String,
    "workers": pl.Int64,
    "status": pl.String,
    "items": pl.Int64,
    "usd": pl.Float64,
    "billed_s": pl.Float64,
    **{f"{name}_s": pl.Float64 for name in CLASSES},
}
OVER = ("succeeded", "failed", "cancelled")
"""Statuses of a GPU job of which nothing runs any more."""
_STARTING = Observation(phase=Phase.STARTING)
_NO_DECISION = Decision(actions=(), reason="")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """One GPU job, for people."""

    order: str
    platform: str
    gpu: str
    machine: str
    """GPU, place and mode of the offer."""
    workers: int
    """As ordered."""
    workers_alive: int
    items_done: int
    items_failed: int
    items_per_s: float
    gpu_use: str
    usd: float
    """An estimate; so far, while it runs."""
    status: str
    """pending, running, succeeded, failed or cancelled."""
    reason: str
    seconds: Mapping[str, float]
    """GPU worker seconds by class, added up."""
    stall: str = ""
    """What is the matter with it while it lives, such as "starved"; "" if nothing is."""
    log: str = ""
    """End of its log, if its platform shows it while it runs; once it is over, in any case."""
    doing: str = ""
    """How far its GPU workers are with long items, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One look at the campaign, after the loop has acted on it."""

    num_items: int
    items_done: int
    """Settled, plus finished and not yet settled; never falls, never exceeds `num_items`."""
    items_left: int
    """Not settled, at the last survey."""
    quarantined_items: int
    chunks_left: int
    jobs: tuple[JobStatus, ...]
    """All GPU jobs of this opening, in order."""
    spent_usd: float
    """By all GPU jobs ever, an estimate; those that run count so far."""
    decision: str
    stall: str = ""
    """What is the matter if nothing can be started; "" if nothing is."""
    closed: str = ""
    """Why the campaign is closed; "" while it runs."""

    @property
    def is_complete(self) -> bool:
        return self.items_left == 0


class Observer:
    """Looks at one campaign; keeps only what cannot change."""

    def __init__(
        self, ledger: Ledger, plan: Plan, policy: Policy, earlier: Mapping[OfferKey, Evidence] | None = None
    ) -> None:
        """`earlier`: what other campaigns measured of offers."""
        self._earlier = earlier or {}
        self._ledger = ledger
        self._plan = plan
        self._policy = policy
        self._survey = Survey(ledger, plan.cuts)
        self._survey_due_at = 0.0
        self._exhausted = ""
        self._heartbeats = HeartbeatReader(ledger)
        self.lives = Lives(())
        self._newest: dict[Chunk, Lease] = {}
        self._progress: dict[str, tuple[tuple[tuple[int, int, str], ...], float]] = {}
        self._settled_before: int | None = None
        self._items_done = 0

    def look(self, *, must_survey: bool) -> None:
        """Read heartbeats, and the survey if it is due."""
        self.lives = Lives(self._heartbeats.read())
        if must_survey or time.monotonic() >= self._survey_due_at:
            self._look_around()

    def _look_around(self) -> None:
        began = time.monotonic()
        self._survey.refresh_all()
        self._exhausted = self._find_exhausted()
        if self._settled_before is None:
            done_before = sum(beat.items_done for beat in self.lives.all)
            self._settled_before = self._plan.num_items - self._survey.items_left - done_before
        took_s = time.monotonic() - began
        self._survey_due_at = time.monotonic() + max(_MIN_SURVEY_PAUSE_S, took_s / _SURVEY_SHARE)

    def _find_exhausted(self) -> str:
        still_open = {found.chunk for window in self._survey.windows for found in window.open}
        self._newest = self._survey.newest_attempts()
        for chunk, lease in self._newest.items():
            if lease.ended and lease.number >= self._policy.max_attempts and chunk in still_open:
                return chunk.id
        return ""

    def view(self, state: JournalState, seen: Mapping[str, Observation]) -> CampaignView:
        """What `decide` gets to know."""
        live = state.live_orders
        now = datetime.now(UTC)
        jobs = [self._job_view(state.orders[order.name], seen.get(order.name, _STARTING), now) for order in live]
        chunks_left = sum(len(window.open) for window in self._survey.windows)
        is_tail = chunks_left <= sum(job.workers_alive for job in jobs)
        return CampaignView(
            num_items=self._plan.num_items,
            items_left=self._survey.items_left,
            quarantined_items=self._survey.quarantined_items,
            chunks_left=chunks_left,
            exhausted_chunk=self._exhausted,
            jobs=jobs,
            ends=[order_end(self.lives, state.orders[end.order], end) for end in state.ends_of_opening],
            leases=lease_views(self.lives, state.orders, self._newest, self._ledger.hedged()) if is_tail else (),
            evidence=self.lives.evidence(state.orders, self._earlier),
            opened_for_s=(now - state.opened.at).total_seconds() if state.opened else 0.0,
            reserved_usd=sum(order.reserved_usd for order in live),
            spent_usd=sum(end.spent_usd for end in state.ended.values()),
            hedged_usd=self.lives.hedged_usd(state.orders),
            closed=state.closed.reason if state.closed else "",
            closed_for_s=(datetime.now(UTC) - state.closed.at).total_seconds() if state.closed else 0.0,
        )

    def hedge(self, chunk_id: str, reason: str) -> None:
        """Let a second attempt begin at a chunk that somebody holds."""
        chunk = Chunk.parse(chunk_id)
        self._ledger.hedge(chunk, self._newest[chunk].number, reason)

    def _job_view(self, ordered: Ordered, seen: Observation, now: datetime) -> JobView:
        name = ordered.order.name
        beats = self.lives.of(name)
        return JobView(
            order=name,
            offer=ordered.order.offer,
            num_workers=ordered.order.num_workers,
            workers_alive=seen.workers_alive,
            is_starting=seen.phase is Phase.STARTING,
            age_s=(now - ordered.at).total_seconds(),
            items_done=self.lives.items_done_by(name) + self.lives.checkpoints_by(name),
            has_lived=bool(beats),
            workers_idle=sum(beat.status == "idle" for beat in beats),
            silent_s=self._silent_s(name),
        )

    def _silent_s(self, order: str) -> float:
        """Since it was last seen to get on, or its first GPU worker to live."""
        marks = self.lives.marks(order)
        before, since = self._progress.get(order, ((), time.monotonic()))
        if marks != before or not marks:
            since = time.monotonic()
        self._progress[order] = (marks, since)
        return time.monotonic() - since

    def progress(self, state: JournalState, seen: Mapping[str, Observation], decision: Decision) -> Progress:
        """What people get to know."""
        view = self.view(state, seen)
        computed = (self._settled_before or 0) + sum(beat.items_done for beat in self.lives.all)
        settled = view.num_items - view.items_left
        at_most = view.num_items if view.items_left == 0 else view.num_items - 1
        now = datetime.now(UTC)
        accrued_usd = sum(self.lives.usd(state.orders[order.name], now) for order in state.live_orders)
        self._items_done = max(self._items_done, settled, min(computed, at_most))
        return Progress(
            num_items=view.num_items,
            items_done=self._items_done,
            items_left=view.items_left,
            quarantined_items=view.quarantined_items,
            chunks_left=view.chunks_left,
            jobs=tuple(self._job_status(entry, state, seen, decision) for entry in state.orders_of_opening),
            spent_usd=view.spent_usd + accrued_usd,
            decision=decision.reason,
            stall=decision.stall or "",
            closed=view.closed,
        )

    def seen_by_heartbeats(self, state: JournalState) -> dict[str, Observation]:
        """What heartbeats alone tell of live GPU jobs, for those who cannot ask the platforms."""
        alive = [beat.order for beat in self.lives.all if beat.status != "over"]
        return {
            order.name: Observation(phase=Phase.RUNNING, workers_alive=alive.count(order.name))
            for order in state.live_orders
            if order.name in alive
        }

    def cost_row(self, ordered: Ordered, state: JournalState) -> dict[str, str | int | float]:
        """What one GPU job has cost and given, by `COST_COLUMNS`."""
        status = self._job_status(ordered, state, self.seen_by_heartbeats(state), _NO_DECISION)
        end = state.ended.get(ordered.order.name)
        seconds = self.lives.classes(ordered, end.at if end else datetime.now(UTC), is_over=end is not None)
        if end and not end.spent_usd and not self.has_lived(ordered.order.name):
            seconds = dict.fromkeys(CLASSES, 0.0)
        return {
            "order": status.order,
            "platform": status.platform,
            "gpu": status.gpu,
            "workers": status.workers,
            "status": status.status,
            "items": status.items_done,
            "usd": status.usd,
            "billed_s": sum(seconds.values()),
            **{f"{name}_s": value for name, value in seconds.items()},
        }

    def has_lived(self, order: str) -> bool:
        """Some GPU worker of it has given a sign of life."""
        return bool(self.lives.of(order))

    def _reason(self, order: str, end: Ended | None) -> str:
        """The platform's word, unless it is only "succeeded", and the GPU workers' own."""
        words = [end.reason] if end and end.reason != "succeeded" else []
        return ": ".join(filter(None, [*words, self.lives.why_over(order)]))

    def _job_status(
        self, ordered: Ordered, state: JournalState, seen: Mapping[str, Observation], decision: Decision
    ) -> JobStatus:
        order = ordered.order
        end = state.ended.get(order.name)
        observation = seen.get(order.name, _STARTING)
        beats = self.lives.of(order.name)
        alive = [beat for beat in beats if beat.status != "over"] if end is None else []
        return JobStatus(
            order=order.name,
            platform=order.offer.platform,
            gpu=order.offer.gpu,
            machine=order.offer.machine,
            workers=order.num_workers,
            workers_alive=observation.workers_alive if end is None else 0,
            items_done=sum(beat.items_done for beat in beats),
            items_failed=sum(beat.items_failed for beat in beats),
            items_per_s=sum(beat.items_per_s for beat in alive),
            gpu_use="; ".join(sorted({beat.gpu for beat in beats})),
            doing="; ".join(filter(None, (beat.doing for beat in alive))),
            usd=end.spent_usd if end else self.lives.usd(ordered, datetime.now(UTC)),
            status=_status(end, observation),
            reason=self._reason(order.name, end),
            seconds=_added_up(beats),
            log=(end or observation).detail,
            stall="" if end else decision.stalls.get(order.name, ""),
        )


def _status(end: Ended | None, seen: Observation) -> str:
    if end is None:
        return "pending" if seen.phase is Phase.STARTING else "running"
    if end.reason.startswith("stopped"):
        return "cancelled"
    return "succeeded" if end.reason == "succeeded" else "failed"


def _added_up(beats: Iterable[Heartbeat]) -> dict[str, float]:
    total: dict[str, float] = {}
    for beat in beats:
        for name, value in beat.seconds.items():
            total[name] = total.get(name, 0.0) + value
    return total
