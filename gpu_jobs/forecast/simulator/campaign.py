"""The simulated campaign: what `decide` sees of the simulated GPU workers, and what its actions do to them."""

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from gpu_jobs.dispatch import (
    CampaignView,
    CloseCampaign,
    Decision,
    HedgeChunk,
    JobView,
    LeaseView,
    StartJob,
    StopJob,
)
from gpu_jobs.dispatch import decide as real_decide
from gpu_jobs.forecast.simulator.model import (
    OfferBehaviour,
    SimulatedJob,
    SimulatedOutcome,
    SimulatedWork,
    SimulatedWorker,
)
from gpu_jobs.forecast.simulator.workers import START, WorkerPool
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.telemetry.samples import Evidence

Decide = Callable[[CampaignView, Sequence[Offer], Policy, datetime], Decision]
_MAX_TICKS = 200_000
_UNSEEN_ITEM_S = 60.0
"""A GPU worker's throughput is unknown until it has finished an item, unless its items are shorter than this."""


def simulate(
    work: SimulatedWork,
    behaviours: Sequence[OfferBehaviour],
    policy: Policy,
    seed: int,
    *,
    offers: Sequence[Offer] | None = None,
    evidence: Mapping[OfferKey, Evidence] | None = None,
    decide: Decide = real_decide,
    tick_s: float = 10.0,
) -> SimulatedOutcome:
    """Simulate one campaign to its end.

    Args:
        work: The work to do.
        behaviours: How each offer really behaves.
        policy: The campaign's policy; its deadline is a time on the virtual clock, which begins at `START`.
        seed: Seed of all random draws.
        offers: The offers as `decide` sees them; None means the real ones, including price changes.
        evidence: What earlier campaigns measured.
        decide: The function that decides.
        tick_s: Virtual seconds between two decisions.
    """
    deadline_s = None if policy.deadline is None else (policy.deadline - START).total_seconds()
    pool = WorkerPool(work, behaviours, random.Random(seed), deadline_s)  # noqa: S311 - a simulation
    for key, found in (evidence or {}).items():
        pool.evidence[key] = [found.items, found.working_s, found.starts, found.start_s]
    return _SimulatedCampaign(pool, policy, offers, decide).run(tick_s)


class _SimulatedCampaign:
    def __init__(self, pool: WorkerPool, policy: Policy, offers: Sequence[Offer] | None, decide: Decide) -> None:
        self._pool = pool
        self._policy = policy
        self._offers = offers
        self._decide = decide
        self._closed = ""
        self._reasons: list[str] = []

    def run(self, tick_s: float) -> SimulatedOutcome:
        pool = self._pool
        for number in range(_MAX_TICKS):
            pool.until(number * tick_s)
            if pool.items_left == 0:
                self._closed = "every item is settled"
            if self._closed:
                break
            self._look()
        finish_s = pool.last_item_s if pool.items_left == 0 else pool.now
        pool.now = finish_s
        for job in list(pool.jobs.values()):
            pool.end_job(job, None, is_stopped=True)
        return SimulatedOutcome(
            usd=pool.spent_usd,
            finish_s=finish_s,
            is_complete=pool.items_left == 0,
            closed=self._closed,
            seconds=pool.seconds,
            usd_by_platform=dict(pool.usd),
            items_by_platform=dict(pool.items),
            orders=pool.orders,
            refused=pool.refused,
            first_item_s=pool.first_item_s,
            reasons=tuple(self._reasons),
        )

    def _look(self) -> None:
        self._pool.settle_idle()
        offers = self._offers
        if offers is None:
            offers = [behaviour.at(self._pool.now).offer for behaviour in self._pool.behaviours.values()]
        decision = self._decide(self._view(), offers, self._policy, START + timedelta(seconds=self._pool.now))
        if decision.actions:
            self._reasons.append(decision.reason)
        for action in decision.actions:
            match action:
                case StartJob():
                    self._pool.order(action)
                case StopJob(order=order, failure=failure) if order in self._pool.jobs:
                    self._pool.end_job(self._pool.jobs[order], failure, is_stopped=failure is None)
                case HedgeChunk(chunk=chunk):
                    self._pool.hedge(chunk)
                case CloseCampaign(reason=reason):
                    self._closed = reason

    def _view(self) -> CampaignView:
        chunks_left = len(self._pool.queue) + len(self._pool.busy)
        is_tail = not self._pool.queue and self._pool.idle
        return CampaignView(
            num_items=self._pool.work.num_items,
            items_left=self._pool.items_left,
            quarantined_items=0,
            chunks_left=max(chunks_left, 1) if self._pool.items_left else 0,
            jobs=[self._job_view(job) for job in self._pool.jobs.values()],
            ends=self._pool.ends,
            leases=[self._lease_view(worker) for worker in self._pool.busy] if is_tail else (),
            evidence=self._evidence(),
            opened_for_s=self._pool.now,
            reserved_usd=sum(job.reserved_usd for job in self._pool.jobs.values()),
            spent_usd=self._pool.spent_usd,
            hedged_usd=self._pool.hedged_usd,
        )

    def _evidence(self) -> dict[OfferKey, Evidence]:
        """What heartbeats report: finished chunks, and of chunks in hand the parts that are written."""
        found = {key: list(known) for key, known in self._pool.evidence.items()}
        for worker in self._pool.busy:
            items, working_s = self._pool.written(worker, self._policy.part_s)
            known = found[worker.job.behaviour.offer.key]
            known[0] += items
            known[1] += working_s
        return {
            key: Evidence(items=items, working_s=working_s, starts=int(starts), start_s=start_s)
            for key, (items, working_s, starts, start_s) in found.items()
        }

    def _job_view(self, job: SimulatedJob) -> JobView:
        has_lived = any(worker.ready_s <= self._pool.now for worker in job.workers)
        return JobView(
            order=job.name,
            offer=job.behaviour.offer,
            num_workers=job.num_workers,
            workers_alive=job.alive,
            is_starting=not has_lived,
            age_s=self._pool.now - job.at,
            items_done=job.items + sum(self._pool.written(worker, self._policy.part_s)[0] for worker in job.workers),
            has_lived=has_lived,
            workers_idle=sum(worker.is_alive and worker.idle_since >= 0 for worker in job.workers),
            silent_s=self._pool.now - max(job.last_item_s, job.at) if has_lived else 0.0,
        )

    def _lease_view(self, worker: SimulatedWorker) -> LeaseView:
        assert worker.chunk is not None
        done = self._pool.items_done(worker)
        items_per_s = worker.speed / worker.chunk.item_s if worker.chunk.item_s < _UNSEEN_ITEM_S or done else 0.0
        return LeaseView(
            chunk=f"{worker.job.name}.{worker.job.workers.index(worker)}",
            offer=worker.job.behaviour.offer,
            items_left=max(1, worker.chunk.items - done),
            items_per_s=items_per_s,
            age_s=self._pool.now - worker.chunk_since,
            is_hedged=worker.twin is not None,
        )
