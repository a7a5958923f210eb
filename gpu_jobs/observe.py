"""What can be seen of a running campaign: the survey of its chunks, its GPU workers' heartbeats, its GPU jobs."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

import polars as pl

from gpu_jobs.dispatch import CampaignView, JobView
from gpu_jobs.jobs import Observation, Order, Phase, Policy
from gpu_jobs.journal import Ended, JournalState, Ordered
from gpu_jobs.ledger import Heartbeat, Ledger, Plan
from gpu_jobs.money import CLASSES, billed_s, classes_of, usd_for
from gpu_jobs.survey import Survey

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
_LIFE = ("starting", "model_load", "working", "idle")
OVER = ("succeeded", "failed", "cancelled")
"""Statuses of a GPU job of which nothing runs any more."""
_STARTING = Observation(phase=Phase.STARTING)


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
    log: str = ""
    """End of its log, if its platform shows it while it runs; once it is over, in any case."""


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
    closed: str = ""
    """Why the campaign is closed; "" while it runs."""

    @property
    def is_complete(self) -> bool:
        return self.items_left == 0


class Observer:
    """Looks at one campaign; keeps only what cannot change."""

    def __init__(self, ledger: Ledger, plan: Plan, policy: Policy) -> None:
        self._ledger = ledger
        self._plan = plan
        self._policy = policy
        self._survey = Survey(ledger, plan.cuts)
        self._survey_due_at = 0.0
        self._exhausted = ""
        self._over: dict[str, Heartbeat] = {}
        self._beats: list[Heartbeat] = []
        self._seen_at: dict[str, float] = {}
        self._settled_before: int | None = None
        self._items_done = 0

    def look(self, *, must_survey: bool) -> None:
        """Read heartbeats, and the survey if it is due."""
        self._beats = [*self._over.values(), *self._live_beats()]
        if must_survey or time.monotonic() >= self._survey_due_at:
            self._look_around()

    def _look_around(self) -> None:
        began = time.monotonic()
        self._survey.refresh_all()
        self._exhausted = self._find_exhausted()
        if self._settled_before is None:
            done_before = sum(beat.items_done for beat in self._beats)
            self._settled_before = self._plan.num_items - self._survey.items_left - done_before
        took_s = time.monotonic() - began
        self._survey_due_at = time.monotonic() + max(_MIN_SURVEY_PAUSE_S, took_s / _SURVEY_SHARE)

    def _live_beats(self) -> list[Heartbeat]:
        live = []
        for beat, at in self._ledger.heartbeats(without=self._over):
            self._seen_at[beat.boot] = at
            if beat.status == "over":
                self._over[beat.boot] = beat
            live.append(beat)
        return live

    def _find_exhausted(self) -> str:
        still_open = {found.chunk for window in self._survey.windows for found in window.open}
        for chunk, lease in self._survey.newest_attempts().items():
            if lease.ended and lease.number >= self._policy.max_attempts and chunk in still_open:
                return chunk.id
        return ""

    def view(self, state: JournalState, seen: Mapping[str, Observation]) -> CampaignView:
        """What `decide` gets to know."""
        ends = [entry for entry in state.entries if isinstance(entry, Ended)]
        live = state.live_orders
        return CampaignView(
            num_items=self._plan.num_items,
            items_left=self._survey.items_left,
            quarantined_items=self._survey.quarantined_items,
            chunks_left=sum(len(window.open) for window in self._survey.windows),
            exhausted_chunk=self._exhausted,
            jobs=[_job_view(order, seen.get(order.name, _STARTING)) for order in live],
            idle_jobs_in_a_row=state.idle_jobs_in_a_row,
            last_failure=f"{ends[-1].reason} {self.why_over(ends[-1].order)}".strip() if ends else "",
            reserved_usd=sum(order.reserved_usd for order in live),
            spent_usd=sum(end.spent_usd for end in ends),
            closed=state.closed.reason if state.closed else "",
            closed_for_s=(datetime.now(UTC) - state.closed.at).total_seconds() if state.closed else 0.0,
        )

    def progress(self, state: JournalState, seen: Mapping[str, Observation], decision: str) -> Progress:
        """What people get to know."""
        view = self.view(state, seen)
        computed = (self._settled_before or 0) + sum(beat.items_done for beat in self._beats)
        settled = view.num_items - view.items_left
        at_most = view.num_items if view.items_left == 0 else view.num_items - 1
        now = datetime.now(UTC)
        accrued_usd = sum(self.job_usd(state.orders[order.name], now) for order in state.live_orders)
        self._items_done = max(self._items_done, settled, min(computed, at_most))
        return Progress(
            num_items=view.num_items,
            items_done=self._items_done,
            items_left=view.items_left,
            quarantined_items=view.quarantined_items,
            chunks_left=view.chunks_left,
            jobs=tuple(self._job_status(entry, state, seen) for entry in state.orders_of_opening),
            spent_usd=view.spent_usd + accrued_usd,
            decision=decision,
            closed=view.closed,
        )

    def seen_by_heartbeats(self, state: JournalState) -> dict[str, Observation]:
        """What heartbeats alone tell of live GPU jobs, for those who cannot ask the platforms."""
        alive = [beat.order for beat in self._beats if beat.status != "over"]
        return {
            order.name: Observation(phase=Phase.RUNNING, workers_alive=alive.count(order.name))
            for order in state.live_orders
            if order.name in alive
        }

    def cost_row(self, ordered: Ordered, state: JournalState) -> dict[str, str | int | float]:
        """What one GPU job has cost and given, by `COST_COLUMNS`."""
        status = self._job_status(ordered, state, self.seen_by_heartbeats(state))
        end = state.ended.get(ordered.order.name)
        seconds = self._classes(ordered, end.at if end else datetime.now(UTC), is_over=end is not None)
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

    def job_usd(self, ordered: Ordered, until: datetime) -> float:
        """What a GPU job has cost up to now or its end, by its offer's rules; never more than its reservation."""
        lives = self._lives_s(ordered, until)
        billed = sum(billed_s(ordered.order.offer, lived_s) for _, lived_s in lives)
        return min(ordered.order.reserved_usd, usd_for(ordered.order.offer, billed))

    def _classes(self, ordered: Ordered, until: datetime, *, is_over: bool) -> dict[str, float]:
        """Every second that is billed for a GPU job, by class."""
        total = dict.fromkeys(CLASSES, 0.0)
        for beat, lived_s in self._lives_s(ordered, until):
            billed = billed_s(ordered.order.offer, lived_s)
            seconds = dict(beat.seconds) if beat else {}
            if beat and beat.items_done:  # error rows are no use to anybody
                failed_s = seconds.get("working", 0.0) * beat.items_failed / beat.items_done
                seconds["quarantined"] = seconds.get("quarantined", 0.0) + failed_s
            before_s = self._began_at(beat) - ordered.at.timestamp() if beat else 0.0
            is_well = beat is not None and (beat.status == "over" or not is_over)
            for name, value in classes_of(billed, seconds, before_s, is_over=is_well).items():
                total[name] += value
        return total

    def _began_at(self, beat: Heartbeat) -> float:
        return self._seen_at[beat.boot] - sum(beat.seconds.get(name, 0.0) for name in _LIFE)

    def _lives_s(self, ordered: Ordered, until: datetime) -> list[tuple[Heartbeat | None, float]]:
        """Each GPU worker of a GPU job and how long it lived; a container that was restarted is several of them."""
        lives: list[tuple[Heartbeat | None, float]] = []
        for slot in range(ordered.order.num_workers):
            beats = [beat for beat in self._beats if (beat.order, beat.slot) == (ordered.order.name, slot)]
            beats.sort(key=self._began_at)
            since = ordered.at.timestamp()
            for beat, follower in zip_longest(beats, beats[1:]):
                ended = until.timestamp()
                if beat.status == "over":
                    ended = min(ended, self._seen_at[beat.boot])
                elif follower is not None:
                    ended = min(ended, self._began_at(follower))
                lives.append((beat, max(0.0, ended - since)))
                since = max(since, ended)
            if not beats:
                lives.append((None, max(0.0, until.timestamp() - since)))
        return lives

    def has_lived(self, order: str) -> bool:
        """Some GPU worker of it has given a sign of life."""
        return any(beat.order == order for beat in self._beats)

    def items_done_by(self, order: str) -> int:
        return sum(beat.items_done for beat in self._beats if beat.order == order)

    def why_over(self, order: str) -> str:
        """What its GPU workers say of their ends."""
        reasons = {beat.reason for beat in self._beats if beat.order == order and beat.reason}
        return "; ".join(sorted(reasons))

    def _reason(self, order: str, end: Ended | None) -> str:
        """The platform's word, unless it is only "succeeded", and the GPU workers' own."""
        words = [end.reason] if end and end.reason != "succeeded" else []
        return ": ".join(filter(None, [*words, self.why_over(order)]))

    def _job_status(self, ordered: Ordered, state: JournalState, seen: Mapping[str, Observation]) -> JobStatus:
        order = ordered.order
        end = state.ended.get(order.name)
        observation = seen.get(order.name, _STARTING)
        beats = [beat for beat in self._beats if beat.order == order.name]
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
            usd=end.spent_usd if end else self.job_usd(ordered, datetime.now(UTC)),
            status=_status(end, observation),
            reason=self._reason(order.name, end),
            seconds=_added_up(beats),
            log=(end or observation).detail,
        )


def _job_view(order: Order, seen: Observation) -> JobView:
    is_starting = seen.phase is Phase.STARTING
    return JobView(
        order=order.name,
        offer=order.offer,
        num_workers=order.num_workers,
        workers_alive=seen.workers_alive,
        is_starting=is_starting,
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
