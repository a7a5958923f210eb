"""What `decide` gets to know, and what it may say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.ledger.journal import CloseCause
from gpu_jobs.telemetry.samples import Evidence


class Stall(StrEnum):
    """What is the matter when nothing seems to happen."""

    NEVER_STARTED = "never started"
    STARTING_TOO_LONG = "starting too long"
    NO_PROGRESS = "no progress"
    STARVED = "starved"
    WAITING_FOR_CAPACITY = "waiting for capacity"
    WAITING_FOR_BUDGET = "waiting for budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One live GPU job, as far as the loop can see."""

    order: str
    offer: Offer
    num_workers: int
    """As ordered."""
    workers_alive: int
    is_starting: bool
    """Ordered, and not yet seen to run or to be over."""
    age_s: float = 0.0
    """Since its order."""
    items_done: int = 0
    has_lived: bool = False
    """Some GPU worker of it has given a sign of life."""
    workers_idle: int = 0
    """Ready, with nothing to do."""
    silent_s: float = 0.0
    """Since it has last finished an item, or first given a sign of life."""

    @property
    def workers_wanted(self) -> int:
        """GPU workers that it has or will have."""
        return self.num_workers if self.is_starting else self.workers_alive


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEnd:
    """One GPU job that is over."""

    offer: Offer
    num_workers: int
    at: datetime
    items_done: int
    failure: Failure | None
    """None: it ended in order, or we stopped it."""
    is_stopped: bool = False
    """By us."""
    told: str = ""
    """Why, in the words of its platform and its GPU workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseView:
    """A chunk in hand, near the end of the campaign."""

    chunk: str
    offer: Offer
    """Of its GPU worker."""
    items_left: int
    items_per_s: float
    """Of its GPU worker now; 0: it has not finished any lately."""
    age_s: float
    is_hedged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignView:
    """What is known of a campaign at one moment."""

    num_items: int
    items_left: int
    quarantined_items: int
    """By convicted crashes and by error rows."""
    chunks_left: int
    exhausted_chunk: str = ""
    """A chunk that has used up `Policy.max_attempts`, if any."""
    jobs: Sequence[JobView] = ()
    ends: Sequence[OrderEnd] = ()
    """Since the campaign was opened, in order."""
    leases: Sequence[LeaseView] = ()
    """Only when there are no more open chunks than GPU workers."""
    evidence: Mapping[OfferKey, Evidence] = field(default_factory=dict)
    opened_for_s: float = 0.0
    reserved_usd: float = 0.0
    spent_usd: float = 0.0
    hedged_usd: float = 0.0
    """Of it, by attempts at chunks that others held."""
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
    """From order to expiry, unless the deadline comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopJob:
    order: str
    reason: str
    failure: Failure | None = None
    """What it is stopped for, if that is its platform's fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeChunk:
    """Let an idle GPU worker begin a second attempt at a chunk that another holds; whoever settles first counts."""

    chunk: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseCampaign:
    cause: CloseCause
    reason: str


Action = StartJob | StopJob | HedgeChunk | CloseCampaign


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now, and why in words."""

    actions: tuple[Action, ...]
    reason: str
    stall: Stall | None = None
    """Of the campaign as a whole."""
    stalls: Mapping[str, Stall] = field(default_factory=dict)
    """Of GPU jobs, by order."""
