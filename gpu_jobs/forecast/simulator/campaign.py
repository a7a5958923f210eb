"""The simulated campaign: what `decide` sees of the fleet, and what becomes of what it says."""

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
from gpu_jobs.dispatch import decide as decide_really
from gpu_jobs.forecast.simulator.model import Job, Outcome, Truth, Work, Worker
from gpu_jobs.forecast.simulator.workers import START, Fleet
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.telemetry.samples import Evidence

Decide = Callable[[CampaignView, Sequence[Offer], Policy, datetime], Decision]
_MAX_TICKS = 200_000
_UNSEEN_ITEM_S = 60.0
"""The pace of a GPU worker is unknown until it has finished an item, unless its items are shorter than this."""


def simulate(
    work: Work,
    truths: Sequence[Truth],
    policy: Policy,
    seed: int,
    *,
    offers: Sequence[Offer] | None = None,
    evidence: Mapping[OfferKey, Evidence] | None = None,
    decide: Decide = decide_really,
    tick_s: float = 10.0,
) -> Outcome:
    """Run one campaign to its end. `policy.deadline` counts from `START`.

    Args:
        work: what is to be done.
        truths: how the offers really behave.
        policy: of the campaign.
        seed: of all chance.
        offers: what `decide` believes; None: the truth, price changes included.
        evidence: what earlier campaigns measured.
        decide: who decides.
        tick_s: virtual seconds between two looks.
    """
    deadline_s = None if policy.deadline is None else (policy.deadline - START).total_seconds()
    fleet = Fleet(work, truths, random.Random(seed), deadline_s)  # noqa: S311 - a simulation
    for key, found in (evidence or {}).items():
        fleet.evidence[key] = [found.items, found.working_s, found.starts, found.start_s]
    world = _World(fleet, policy, offers, decide)
    return world.run(tick_s)


class _World:
    def __init__(self, fleet: Fleet, policy: Policy, offers: Sequence[Offer] | None, decide: Decide) -> None:
        self._fleet = fleet
        self._policy = policy
        self._offers = offers
        self._decide = decide
        self._closed = ""
        self._reasons: list[str] = []

    def run(self, tick_s: float) -> Outcome:
        fleet = self._fleet
        for number in range(_MAX_TICKS):
            fleet.until(number * tick_s)
            if fleet.items_left == 0:
                self._closed = "every item is settled"
            if self._closed:
                break
            self._look()
        finish_s = fleet.last_item_s if fleet.items_left == 0 else fleet.now
        fleet.now = finish_s
        for job in list(fleet.jobs.values()):
            fleet.end_job(job, None, is_stopped=True)
        return Outcome(
            usd=fleet.spent_usd,
            finish_s=finish_s,
            is_complete=fleet.items_left == 0,
            closed=self._closed,
            seconds=fleet.seconds,
            usd_by_platform=dict(fleet.usd),
            items_by_platform=dict(fleet.items),
            orders=fleet.orders,
            refused=fleet.refused,
            first_items_s=fleet.first_item_s,
            reasons=tuple(self._reasons),
        )

    def _look(self) -> None:
        self._fleet.settle_idle()
        offers = self._offers
        if offers is None:
            offers = [truth.at(self._fleet.now).offer for truth in self._fleet.truths.values()]
        decision = self._decide(self._view(), offers, self._policy, START + timedelta(seconds=self._fleet.now))
        if decision.actions:
            self._reasons.append(decision.reason)
        for action in decision.actions:
            match action:
                case StartJob():
                    self._fleet.order(action)
                case StopJob(order=order, failure=failure) if order in self._fleet.jobs:
                    self._fleet.end_job(self._fleet.jobs[order], failure, is_stopped=failure is None)
                case HedgeChunk(chunk=chunk):
                    self._fleet.hedge(chunk)
                case CloseCampaign(reason=reason):
                    self._closed = reason

    def _view(self) -> CampaignView:
        chunks_left = len(self._fleet.queue) + len(self._fleet.busy)
        is_tail = not self._fleet.queue and self._fleet.idle
        return CampaignView(
            num_items=self._fleet.work.num_items,
            items_left=self._fleet.items_left,
            quarantined_items=0,
            chunks_left=max(chunks_left, 1) if self._fleet.items_left else 0,
            jobs=[self._job_view(job) for job in self._fleet.jobs.values()],
            ends=self._fleet.ends,
            leases=[self._lease_view(worker) for worker in self._fleet.busy] if is_tail else (),
            evidence=self._evidence(),
            opened_for_s=self._fleet.now,
            reserved_usd=sum(job.reserved_usd for job in self._fleet.jobs.values()),
            spent_usd=self._fleet.spent_usd,
            hedged_usd=self._fleet.hedged_usd,
        )

    def _evidence(self) -> dict[OfferKey, Evidence]:
        """As heartbeats tell it: of a chunk in hand, the parts that are written."""
        found = {key: list(known) for key, known in self._fleet.evidence.items()}
        for worker in self._fleet.busy:
            items, working_s = self._fleet.written(worker, self._policy.part_s)
            known = found[worker.job.truth.offer.key]
            known[0] += items
            known[1] += working_s
        return {
            key: Evidence(items=items, working_s=working_s, starts=int(starts), start_s=start_s)
            for key, (items, working_s, starts, start_s) in found.items()
        }

    def _job_view(self, job: Job) -> JobView:
        has_lived = any(worker.ready_s <= self._fleet.now for worker in job.workers)
        return JobView(
            order=job.name,
            offer=job.truth.offer,
            num_workers=job.num_workers,
            workers_alive=job.alive,
            is_starting=not has_lived,
            age_s=self._fleet.now - job.at,
            items_done=job.items + sum(self._fleet.written(worker, self._policy.part_s)[0] for worker in job.workers),
            has_lived=has_lived,
            workers_idle=sum(worker.is_alive and worker.idle_since >= 0 for worker in job.workers),
            silent_s=self._fleet.now - max(job.last_item_s, job.at) if has_lived else 0.0,
        )

    def _lease_view(self, worker: Worker) -> LeaseView:
        assert worker.chunk is not None
        done = self._fleet.items_done(worker)
        items_per_s = worker.speed / worker.chunk.item_s if worker.chunk.item_s < _UNSEEN_ITEM_S or done else 0.0
        return LeaseView(
            chunk=f"{worker.job.name}.{worker.job.workers.index(worker)}",
            offer=worker.job.truth.offer,
            items_left=max(1, worker.chunk.items - done),
            items_per_s=items_per_s,
            age_s=self._fleet.now - worker.chunk_since,
            is_hedged=worker.twin is not None,
        )
