"""The values that a campaign and a platform exchange: policy, order, handle, observation."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from gpu_jobs.jobs.failures import Failure, gravest
from gpu_jobs.jobs.offers import Offer

Objective = Literal["cheapest", "balanced", "fastest"]
"""What a campaign optimizes within its budget and deadline. "balanced" pays a tenth more for a tenth less time."""


class Phase(StrEnum):
    """The state of a GPU job as its platform reports it."""

    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    GONE = "gone"
    """The platform has no record of the GPU job, or no longer has one."""

    @property
    def is_over(self) -> bool:
        return self not in (Phase.STARTING, Phase.RUNNING)


class JobOutcome(StrEnum):
    """What became of a GPU job that is over."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    """It was stopped by us, or by a person at its platform; `Ended.failure` says if that was its platform's fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an open campaign may do, and its limits and timeouts. A resume may change all of it."""

    platforms: tuple[str, ...] = ("local",)
    gpus: tuple[str, ...] = ()
    """GPU types that may be used, such as "L4" or "A100"; empty means all that the platforms offer."""
    objective: Objective = "cheapest"
    max_workers: int = 2
    """Maximum number of GPU workers alive at the same time, over all platforms."""
    budget_usd: float | None = None
    deadline: datetime | None = None
    """UTC; no GPU job starts after the deadline, and all GPU workers end at it."""
    job_hours: float = 12.0
    """A GPU job expires this long after its order, or at the deadline if that is earlier."""
    part_s: float = 60.0
    """Finished rows are written as a part at least this often, so the kill of a GPU worker loses no more than this."""
    heartbeat_s: float = 5.0
    lease_timeout_s: float = 30.0
    """A lease is dead when its holder's heartbeat is older than this."""
    stall_s: float = 900.0
    """A compute process that sends no message for this long is killed; it must exceed the longest micro-batch."""
    max_crashes: int = 2
    """Crashes blamed on a chunk before it is split, or, if it has one item, before the item is quarantined."""
    max_attempts: int = 50
    """Attempts at one chunk, however they end, before the campaign is closed for lack of progress."""
    max_idle_jobs: int = 3
    """Consecutive GPU jobs that end without a single commit before the campaign is closed as broken."""
    max_wait_hours: float = 6.0
    """The campaign is closed after this long without a live GPU worker or a platform that has capacity."""
    hedge_share: float = 0.05
    """Maximum share of all dollars for second attempts at chunks that other GPU workers hold; 0 means none."""
    is_canary_first: bool = False
    """Whether one GPU worker (two if time matters) measures speed and cold start before the others are ordered.

    Not done where all offers are free; switch it off where one item takes long."""
    max_quarantined_share: float = 0.5
    """Maximum share of all items that may be quarantined, by crashes or by error rows; above it the campaign is closed.
    Checked once 20 items are quarantined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request to a platform for one GPU job. Its name is never used again: it contains its journal entry's number."""

    name: str
    """`[a-z0-9-]`, at most 50 characters; starts with the hash of the store root, which the reaper looks for."""
    campaign_uri: str
    offer: Offer
    num_workers: int
    expires_at: datetime
    reserved_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """A platform's reference to the GPU job of an order."""

    platform: str
    order: str
    id: str
    """The platform's own id or ids; only the platform's adapter reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a platform reports about one GPU job."""

    phase: Phase
    workers_alive: int = 0
    reason: str = ""
    """Why it is over, for people; "" while it is not."""
    detail: str = ""
    """The platform's own message, or the last lines of a log; while it runs, only if no extra call is needed."""
    failure: Failure | None = None
    """Why it failed, if the platform's codes show it; a message is read only where the platform has no code."""


def failure_of(seen: Observation, reported: Iterable[Failure]) -> Failure | None:
    """Return why a GPU job that is over failed; None if it did not fail, or was stopped.

    What its GPU workers report about themselves (`reported`) comes first, then the failure in the platform's
    observation, then that the platform has no record of it. No message is read.
    """
    if seen.phase in (Phase.SUCCEEDED, Phase.STOPPED):
        return None
    return gravest(reported) or seen.failure or (Failure.LOST if seen.phase is Phase.GONE else Failure.UNKNOWN)
