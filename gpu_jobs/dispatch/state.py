"""The input and the output of `decide`: the state of a campaign, and the actions to take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.ledger.journal import CloseCause
from gpu_jobs.telemetry.samples import Evidence


class Stall(StrEnum):
    """Why a job or campaign appears stuck."""

    NEVER_STARTED = "never started"
    STARTING_TOO_LONG = "starting too long"
    NO_PROGRESS = "no progress"
    STARVED = "starved"
    WAITING_FOR_CAPACITY = "waiting for capacity"
    WAITING_FOR_BUDGET = "waiting for budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A GPU job that is not over, as far as the control loop knows."""

    order: str
    offer: Offer
    num_workers: int
    """Number of GPU workers that were ordered."""
    workers_alive: int
    is_starting: bool
    """Whether it was ordered, but has not been seen running yet."""
    age_s: float = 0.0
    """Seconds since its order."""
    items_done: int = 0
    has_lived: bool = False
    """Whether any of its GPU workers has sent a heartbeat."""
    workers_idle: int = 0
    """Number of its GPU workers that are ready and have no chunk."""
    silent_s: float = 0.0
    """Seconds since the last progress, or since the first heartbeat."""

    @property
    def workers_wanted(self) -> int:
        """Number of GPU workers that it has, or will have once it has started."""
        return self.num_workers if self.is_starting else self.workers_alive


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEnd:
    """A GPU job that is over."""

    offer: Offer
    num_workers: int
    at: datetime
    items_done: int
    failure: Failure | None
    """Why it failed; None means that it ended normally, or that we stopped it."""
    is_stopped: bool = False
    """Whether we stopped it."""
    message: str = ""
    """Why it ended, from its platform and its GPU workers; for people only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseView:
    """A chunk that a GPU worker holds near the end of the campaign."""

    chunk: str
    offer: Offer
    """The offer of the GPU worker that holds it."""
    items_left: int
    items_per_s: float
    """Current throughput of that GPU worker; 0 means that it has not finished an item lately."""
    age_s: float
    is_hedged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignView:
    """What is known about a campaign at one moment."""

    num_items: int
    items_left: int
    quarantined_items: int
    """Number of items quarantined because of crashes or error rows."""
    chunks_left: int
    exhausted_chunk: str = ""
    """A chunk that has used up its `Policy.max_attempts`; "" means that there is none."""
    jobs: Sequence[JobView] = ()
    ends: Sequence[OrderEnd] = ()
    """GPU jobs that have ended since the campaign was opened, in order."""
    leases: Sequence[LeaseView] = ()
    """Chunks in hand; filled in only when there are no more open chunks than GPU workers."""
    evidence: Mapping[OfferKey, Evidence] = field(default_factory=dict)
    opened_for_s: float = 0.0
    reserved_usd: float = 0.0
    spent_usd: float = 0.0
    hedged_usd: float = 0.0
    """The part of `spent_usd` that went into second attempts."""
    closed: str = ""
    closed_for_s: float = 0.0

    @property
    def workers_wanted(self) -> int:
        return sum(job.workers_wanted for job in self.jobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartJob:
    offer: Offer
    num_workers: int
    reason: str
    hours: float
    """Time from order to expiry, unless the deadline is earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopJob:
    order: str
    reason: str
    failure: Failure | None = None
    """Why it is stopped, if that is its platform's fault; None means that we chose to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeChunk:
    """Let an idle GPU worker start a second attempt at a chunk that another holds; the first to settle it wins."""

    chunk: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseCampaign:
    cause: CloseCause
    reason: str


Action = StartJob | StopJob | HedgeChunk | CloseCampaign


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now, and why."""

    actions: tuple[Action, ...]
    reason: str
    stall: Stall | None = None
    """Why the campaign as a whole appears stuck, if it does."""
    stalls: Mapping[str, Stall] = field(default_factory=dict)
    """Why GPU jobs appear stuck, by the name of their order."""
