"""The reconcile loop: observe, decide, act.

It keeps no state that matters: it may be killed at any point, and continues from the store when it is run again. Two
loops on one campaign are safe: the one that opened it last continues, and the other stops at its next turn.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import chain

from gpu_jobs.campaign.observer import Observer
from gpu_jobs.campaign.progress import STARTING, Progress
from gpu_jobs.dispatch import CloseCampaign, Decision, HedgeChunk, StartJob, StopJob, decide
from gpu_jobs.errors import (
    CampaignError,
    NoCapacityError,
    OutcomeUnknownError,
    PlatformError,
    RejectedError,
    SupersededError,
)
from gpu_jobs.jobs.costs import REAPER_S, worst_case_usd
from gpu_jobs.jobs.failures import failure_of_refusal
from gpu_jobs.jobs.names import order_prefix
from gpu_jobs.jobs.offers import OfferKey, big_enough, stale_prices
from gpu_jobs.jobs.orders import Handle, JobOutcome, Observation, Order, Phase, Policy, failure_of
from gpu_jobs.ledger.journal import CloseCause, Closed, Ended, Journal, JournalEntry, JournalState, Opened, Ordered
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.records import Plan
from gpu_jobs.platforms import open_platform
from gpu_jobs.platforms.base import Platform, start_once
from gpu_jobs.platforms.event_loop import Background
from gpu_jobs.telemetry.samples import Evidence
from gpu_jobs.telemetry.snapshot import Moment, Snapshot
from gpu_jobs.telemetry.workers import GpuWorkers
from gpu_jobs.workloads import load_workload

_STOP_S = 20.0
"""How many seconds to wait for GPU jobs to stop; Prefect kills a cancelled flow after 30 s."""
_STOP_PAUSE_S = 0.1
_LOGGER = logging.getLogger(__name__)


class Loop:
    """One flow run's loop on one campaign."""

    def __init__(
        self,
        ledger: Ledger,
        plan: Plan,
        policy: Policy,
        platforms: Sequence[Platform],
        *,
        owner: str,
        background: Background,
        earlier: Mapping[OfferKey, Evidence] | None = None,
        clock: Callable[[], Moment] = Moment.now,
    ) -> None:
        """Open adapters and offers for a campaign. `clock` is read once per turn."""
        self._clock = clock
        self._uri = ledger.store.uri
        self._journal = Journal(ledger.store)
        self._policy = policy
        self._platforms = {platform.name: platform for platform in platforms}
        offers = list(chain.from_iterable(platform.offers() for platform in platforms))
        workload = load_workload(plan.workload, plan.params)
        self._offers = big_enough(offers, workload.num_gpus, workload.gpu_memory_gib())
        self._background = background
        self._owner = owner
        self._observer = Observer(ledger, plan, policy, self._journal, earlier or {})
        self._handles: dict[str, Handle] = {}
        self._seen: dict[str, Observation] = {}
        self._given_up: dict[str, StopJob] = {}
        self._warned: set[str] = set()
        self.is_over = False

    def open(self) -> None:
        """Open the campaign for this flow run, which takes it over from any other."""
        now = self._clock()
        for warning in stale_prices(self._offers, now.at.date()):
            _LOGGER.warning(warning)
        self._append(Opened(owner=self._owner, policy=self._policy, at=now.at))

    def turn(self) -> Progress:
        """Observe, decide and act once."""
        now = self._clock()
        state = self._read()
        seen = self._observe(state, now)
        if self._note_ends(state, seen, now):
            self._read()
        snapshot = self._observer.look(now, must_survey=not any(each.workers_alive for each in seen.values()))
        decision = self._decide(snapshot, seen, now)
        if any(isinstance(action, StartJob) for action in decision.actions):
            snapshot = self._observer.survey_again(snapshot, now)  # GPU workers may have left because all is done
            decision = self._decide(snapshot, seen, now)
        self._act(decision, snapshot, now)
        snapshot = replace(snapshot, journal=self._journal.read())
        self.is_over = snapshot.journal.closed is not None and not snapshot.journal.live_orders
        return self._observer.progress(snapshot, seen, decision)

    def _decide(self, snapshot: Snapshot, seen: Mapping[str, Observation], now: Moment) -> Decision:
        return decide(self._observer.view(snapshot, seen, now), self._offers, self._policy, now.at)

    def stop(self, reason: str, cause: CloseCause) -> None:
        """Close the campaign and stop its GPU jobs, within the time that an interrupted flow has."""
        now = self._clock()
        give_up_s = now.monotonic_s + _STOP_S
        with suppress(CampaignError):  # it is closed already, or belongs to another flow run now
            self._append(Closed(reason=reason, cause=cause, owner=self._owner, at=now.at))
        while (state := self._journal.read()).live_orders and now.monotonic_s < give_up_s:
            if state.opened is None or state.opened.owner != self._owner:
                return  # another flow run has the campaign, and so its GPU jobs
            for order in state.live_orders:
                self._stop_job(order.name)
            self._note_ends(state, self._observe(state, now), now, because=f"stopped: {reason}")
            time.sleep(_STOP_PAUSE_S)
            now = self._clock()

    def _read(self) -> JournalState:
        state = self._journal.read()
        opened = state.opened
        if opened is None or opened.owner != self._owner:
            by = opened.owner if opened else "nobody"
            raise SupersededError(f"flow run {by} has opened {self._uri}; this one stops")
        return state

    def _append(self, entry: JournalEntry) -> None:
        """Append an entry that stays valid whatever others append first."""
        while not self._journal.append(entry, upon=self._journal.read()):
            continue

    def _observe(self, state: JournalState, now: Moment) -> dict[str, Observation]:
        """Ask the platforms about every live order."""
        seen: dict[str, Observation] = {}
        for name in {order.offer.platform for order in state.live_orders}:
            platform = self._platform(name)
            orders = [order for order in state.live_orders if order.offer.platform == name]
            for order in orders:
                if order.name not in self._handles:
                    self._look_up(platform, order, state, seen, now)
            handles = [self._handles[order.name] for order in orders if order.name in self._handles]
            try:
                found = self._background.run(platform.observe(handles)) if handles else {}
            except PlatformError as error:
                self._warn_once(name, "status", error)
                found = {handle: self._without_news(state, handle.order, error, now) for handle in handles}
            seen.update({handle.order: observation for handle, observation in found.items()})
        self._seen = seen
        return seen

    def _look_up(
        self, platform: Platform, order: Order, state: JournalState, seen: dict[str, Observation], now: Moment
    ) -> None:
        """Find a GPU job whose start was not confirmed: the reply was lost, or the orchestrator died."""
        try:
            handle = self._background.run(platform.find(order.name))
        except PlatformError as error:  # unknown: we ask again at the next turn
            self._warn_once(platform.name, "status", error)
            if gone := self._presumed_gone(state, order.name, error, now):
                seen[order.name] = gone
            return
        age_s = (now.at - state.orders[order.name].at).total_seconds()
        if handle is not None:
            self._handles[order.name] = handle
        elif age_s > platform.find_lag_s:
            seen[order.name] = Observation(phase=Phase.GONE, reason="not to be found on its platform")

    def _warn_once(self, platform: str, request: str, error: PlatformError) -> None:
        """Log once what a person may have to fix; the campaign continues, on other platforms if it can."""
        if isinstance(error, RejectedError) and str(error) not in self._warned:
            self._warned.add(str(error))
            _LOGGER.warning("%s rejected a %s request: %s", platform, request, error)

    def _without_news(self, state: JournalState, name: str, error: PlatformError, now: Moment) -> Observation:
        """Return the last known observation of a GPU job whose platform does not answer."""
        return self._presumed_gone(state, name, error, now) or self._seen.get(name, STARTING)

    def _presumed_gone(self, state: JournalState, name: str, error: PlatformError, now: Moment) -> Observation | None:
        """Presume that a GPU job is gone only when it must have ended long ago, by its GPU workers or the reaper."""
        if now.at < state.orders[name].order.expires_at + timedelta(seconds=REAPER_S):
            return None
        return Observation(
            phase=Phase.GONE, reason=f"it has expired, and its platform does not report its status: {error}"
        )

    def _note_ends(self, state: JournalState, seen: Mapping[str, Observation], now: Moment, because: str = "") -> bool:
        over = {name: observation for name, observation in seen.items() if observation.phase.is_over}
        workers = self._observer.workers() if over else GpuWorkers(())
        for name, observation in over.items():
            self._end_order(state.orders[name], observation, workers, now, because)
        return bool(over)

    def _end_order(
        self, ordered: Ordered, observation: Observation, workers: GpuWorkers, now: Moment, because: str = ""
    ) -> None:
        name = ordered.order.name
        failure = None if because else failure_of(observation, workers.failures(name))
        if stop := self._given_up.get(name):
            because, failure = because or f"stopped: {stop.reason}", stop.failure
        if because or observation.phase is Phase.STOPPED:
            outcome = JobOutcome.STOPPED
        else:
            outcome = JobOutcome.FAILED if failure else JobOutcome.SUCCEEDED
        never_ran = observation.phase is Phase.GONE and not workers.of(name)
        ended = Ended(
            order=name,
            reason=because or observation.reason or observation.phase.value,
            detail=observation.detail,
            outcome=outcome,
            items_done=workers.items_done_by(name),
            spent_usd=0.0 if never_ran else workers.usd(ordered, now.at),
            checkpoints=workers.checkpoints_by(name),
            at=now.at,
            failure=failure,
        )
        with suppress(CampaignError):  # another flow run has recorded it already
            self._append(ended)

    def _act(self, decision: Decision, snapshot: Snapshot, now: Moment) -> None:
        state = snapshot.journal
        for action in decision.actions:
            match action:
                case StartJob():
                    if not self._start_job(action, state, now):
                        return  # another entry came first: we decide again
                    state = self._journal.read()
                    if state.entries[-1].kind != "ordered":
                        return  # the GPU job is over already: we decide again
                case StopJob():
                    self._given_up[action.order] = action
                    self._stop_job(action.order)
                case HedgeChunk(chunk=chunk, reason=reason):
                    self._observer.hedge(snapshot, chunk, reason)
                case CloseCampaign(cause=cause, reason=reason):
                    closed = Closed(reason=reason, cause=cause, owner=self._owner, at=now.at)
                    self._journal.append(closed, upon=state)  # if another came first, we decide again

    def _start_job(self, action: StartJob, state: JournalState, now: Moment) -> bool:
        """Record the order, then start the GPU job; return False if another journal entry came first."""
        expires_at = now.at + timedelta(hours=action.hours)
        if self._policy.deadline is not None:
            expires_at = min(expires_at, self._policy.deadline)
        order = Order(
            name=f"{order_prefix(self._uri)}-{state.next_seq:04d}",
            campaign_uri=self._uri,
            offer=action.offer,
            num_workers=action.num_workers,
            expires_at=expires_at,
            reserved_usd=worst_case_usd(action.offer, action.num_workers, (expires_at - now.at) / timedelta(hours=1)),
        )
        if not self._journal.append(Ordered(order=order, owner=self._owner, reason=action.reason, at=now.at), state):
            return False
        try:
            platform = self._platform(action.offer.platform)
            self._handles[order.name] = self._background.run(start_once(platform, order))
        except (NoCapacityError, RejectedError) as error:
            gone = Observation(phase=Phase.GONE, reason=str(error), failure=failure_of_refusal(error))
            self._end_order(self._journal.read().orders[order.name], gone, GpuWorkers(()), now)
        except OutcomeUnknownError:
            pass  # we look it up at every turn until its platform must know it
        return True

    def _stop_job(self, order: str) -> None:
        if handle := self._handles.get(order):
            try:
                self._background.run(self._platform(handle.platform).stop(handle))
            except PlatformError as error:  # we ask again at the next turn
                self._warn_once(handle.platform, "stop", error)

    def _platform(self, name: str) -> Platform:
        """Return an adapter, opening it if only earlier flow runs used that platform: their GPU jobs may still run."""
        if name not in self._platforms:
            self._platforms[name] = open_platform(name)
        return self._platforms[name]
