"""A random world for `decide`: platforms that refuse, lose replies, fail, preempt, and report late or twice."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from gpu_jobs.dispatch import (
    CampaignView,
    CloseCampaign,
    HedgeChunk,
    JobView,
    OrderEnd,
    StartJob,
    StopJob,
    decide,
)
from gpu_jobs.jobs.costs import REAPER_S, billed_s, usd_for, worst_case_usd
from gpu_jobs.jobs.failures import TREATMENTS, Failure
from gpu_jobs.telemetry.samples import Evidence

START = datetime(2026, 11, 24, tzinfo=UTC)
ITEM_S = 60.0
BREAK_AFTER, BREAK_S = 3, 30.0


@dataclass(slots=True, kw_only=True)
class Job:
    """What an order has really come to, and what is known of it."""

    order: str
    offer: object
    num_workers: int
    at: datetime
    expires_at: datetime
    reserved_usd: float
    runs_from: datetime | None = None
    """When it really started, whether that is known or not; None: it never did."""
    over_at: datetime | None = None
    is_seen: bool = False
    workers_alive: int = 0
    items_done: int = 0
    failure: Failure | None = None
    noted: OrderEnd | None = None

    @property
    def is_alive(self):
        return self.runs_from is not None and self.over_at is None

    def usd(self, now):
        """What its platform really bills; a GPU worker lives no longer than the reaper lets it."""
        if self.runs_from is None:
            return 0.0
        end = min(self.over_at or now, self.expires_at + timedelta(seconds=REAPER_S))
        return self.num_workers * usd_for(self.offer, billed_s(self.offer, (end - self.at).total_seconds()))


@dataclass(slots=True, kw_only=True)
class World:
    offers: list
    policy: object
    num_items: int
    start_fate: object = lambda _offer: "fine"
    now: datetime = START
    items_left: int = 0
    jobs: list = field(default_factory=list)
    closed: str = ""
    closed_at: datetime | None = None
    decisions: list = field(default_factory=list)
    starts: list = field(default_factory=list)
    """Of each: when, offer, GPU workers, and the world's own record of the location's failures then."""

    def __post_init__(self):
        self.items_left = self.num_items

    def view(self):
        live = [job for job in self.jobs if job.noted is None]
        noted = sorted((job for job in self.jobs if job.noted), key=lambda job: job.noted.at)
        evidence = {}
        for job in self.jobs:
            if job.items_done:
                known = evidence.get(job.offer.key, Evidence())
                evidence[job.offer.key] = Evidence(
                    items=known.items + job.items_done, working_s=known.working_s + job.items_done * ITEM_S
                )
        return CampaignView(
            num_items=self.num_items,
            items_left=self.items_left,
            quarantined_items=0,
            chunks_left=self.items_left,
            jobs=[self._job_view(job) for job in live],
            ends=[job.noted for job in noted],
            evidence=evidence,
            opened_for_s=(self.now - START).total_seconds(),
            reserved_usd=sum(job.reserved_usd for job in live),
            spent_usd=sum(min(job.reserved_usd, job.usd(job.noted.at)) for job in noted),
            closed=self.closed,
            closed_for_s=(self.now - self.closed_at).total_seconds() if self.closed_at else 0.0,
        )

    def _job_view(self, job):
        return JobView(
            order=job.order,
            offer=job.offer,
            num_workers=job.num_workers,
            workers_alive=job.workers_alive if job.is_seen else 0,
            is_starting=not job.is_seen,
            age_s=(self.now - job.at).total_seconds(),
            items_done=job.items_done,
            has_lived=job.is_seen,
        )

    def decide_and_act(self):
        decision = decide(self.view(), self.offers, self.policy, self.now)
        self.decisions.append(decision)
        for action in decision.actions:
            match action:
                case StartJob():
                    self._start(action)
                case StopJob(order=order, failure=failure):
                    self.end(self.named(order), failure, is_stopped=failure is None)
                case CloseCampaign(reason=reason):
                    self.closed, self.closed_at = reason, self.now
                case HedgeChunk():
                    raise AssertionError("there are no leases to hedge")
        return decision

    def named(self, order):
        return next(job for job in self.jobs if job.order == order)

    def _start(self, action):
        expires_at = self.now + timedelta(hours=action.hours)
        if self.policy.deadline is not None:
            expires_at = min(expires_at, self.policy.deadline)
        self.starts.append((self.now, action, self._record(action.offer)))
        job = Job(
            order=f"job-{len(self.jobs)}",
            offer=action.offer,
            num_workers=action.num_workers,
            at=self.now,
            expires_at=expires_at,
            reserved_usd=worst_case_usd(action.offer, action.num_workers, (expires_at - self.now) / timedelta(hours=1)),
        )
        self.jobs.append(job)
        match self.start_fate(action.offer):
            case "no_capacity":
                self.note(job, Failure.NO_CAPACITY)
            case "rejected":
                self.note(job, Failure.REJECTED)
            case "request_lost":
                pass  # noticed when somebody calls `give_up`
            case _:
                job.runs_from, job.workers_alive = self.now, job.num_workers

    def _record(self, offer):
        """Errors in a row at a location, when the last was, and whether a GPU job is there that came after it."""
        location = (offer.platform, offer.gpu, offer.region)
        here = [job for job in self.jobs if (job.offer.platform, job.offer.gpu, job.offer.region) == location]
        errors, last = 0, None
        for job in sorted((job for job in here if job.noted), key=lambda job: job.noted.at):
            if job.items_done:
                errors, last = 0, None
            elif job.noted.failure and TREATMENTS[job.noted.failure].is_error:
                errors, last = errors + 1, job.noted.at
        live = [job for job in here if job.noted is None and last is not None and job.at >= last]
        if any(job.items_done for job in live):
            errors = 0
        return errors, last, len(live)

    def see(self, job):
        """Its reply, or a look at its platform, has come through."""
        job.is_seen = job.is_seen or job.is_alive

    def work(self, job, items):
        items = min(items, self.items_left)
        job.items_done += items
        self.items_left -= items

    def die(self, job, failure):
        """It is really over; nobody knows yet."""
        if job.is_alive:
            job.over_at, job.failure = self.now, failure

    def note(self, job, failure, *, is_stopped=False):
        """Its end is noticed; a second time is ignored, as the journal does."""
        if job.noted is None:
            job.noted = OrderEnd(
                offer=job.offer,
                num_workers=job.num_workers,
                at=self.now,
                items_done=job.items_done,
                failure=failure,
                is_stopped=is_stopped,
                message=str(failure or "stopped"),
            )

    def end(self, job, failure, *, is_stopped=False):
        self.die(job, failure)
        self.note(job, failure, is_stopped=is_stopped)

    def pass_time(self, seconds):
        self.now += timedelta(seconds=seconds)
        for job in self.jobs:  # GPU workers end themselves at their expiry, or the reaper ends them
            if job.is_alive and self.now >= job.expires_at + timedelta(seconds=REAPER_S):
                self.die(job, None)

    @property
    def true_usd(self):
        return sum(job.usd(self.now) for job in self.jobs)
