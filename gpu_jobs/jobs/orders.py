"""The nouns between a campaign and a platform: policy, order, handle, observation."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from gpu_jobs.jobs.failures import Failure, gravest
from gpu_jobs.jobs.offers import Offer

Objective = Literal["cheapest", "balanced", "fastest"]
"""What a campaign is to be within budget and deadline. Balanced: a tenth more dollars for a tenth less time."""


class Phase(StrEnum):
    """Where a platform says that a GPU job is."""

    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    GONE = "gone"
    """The platform has forgotten it, or never knew it."""

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
    """What an opened campaign may do, and how patient it is. A resume may change all of it."""

    platforms: tuple[str, ...] = ("local",)
    gpus: tuple[str, ...] = ()
    """GPU types that may be used, such as "L4" or "A100"; empty: all that a platform offers."""
    objective: Objective = "cheapest"
    max_workers: int = 2
    """GPU workers alive at once, over all platforms."""
    budget_usd: float | None = None
    deadline: datetime | None = None
    """UTC; no GPU job starts after it, and its GPU workers end at it."""
    job_hours: float = 12.0
    """A GPU job expires this long after its order, or at the deadline if that is sooner."""
    part_s: float = 60.0
    """Finished rows become a part at least this often: what a kill of a whole GPU worker costs at most."""
    heartbeat_s: float = 5.0
    lease_timeout_s: float = 30.0
    """A lease is dead when its holder's heartbeat is older than this."""
    stall_s: float = 900.0
    """A compute process that says nothing for this long is killed; must exceed the longest micro-batch."""
    max_crashes: int = 2
    """Convicting crashes of a chunk before it is split, or a lone item quarantined."""
    max_attempts: int = 50
    """Attempts at one chunk, whatever their ends, before the campaign is closed as not getting on."""
    max_idle_jobs: int = 3
    """GPU jobs in a row that end without a single commit before the campaign is closed as broken."""
    max_wait_hours: float = 6.0
    """With nothing alive and no platform that has capacity, the campaign is closed after so long."""
    hedge_share: float = 0.05
    """Of all dollars, how much may go into second attempts at chunks that others hold; 0: none."""
    is_canary_first: bool = False
    """One GPU worker, in a hurry two, measures before the others start, unless all is free; for short items."""
    max_quarantined_share: float = 0.5
    """Of all items, by crashes and by error rows; above it the campaign is closed. Checked from 20 items on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One GPU job, as it is asked of a platform. Its name is unique for ever: it contains its journal entry."""

    name: str
    """`[a-z0-9-]`, at most 50 characters; starts with the store root's hash, which the reaper looks for."""
    campaign_uri: str
    offer: Offer
    num_workers: int
    expires_at: datetime
    reserved_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """What a platform calls the GPU job of an order."""

    platform: str
    order: str
    id: str
    """The platform's own id or ids, opaque to all but its adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a platform says of one GPU job."""

    phase: Phase
    workers_alive: int = 0
    reason: str = ""
    """Why it is over, in the words of our failure causes; "" while it is not."""
    detail: str = ""
    """The platform's own message, or the end of a log in whole lines; while it runs, only if that costs nothing."""
    failure: Failure | None = None
    """What it failed of, if the platform's codes tell; a message only where the platform has no code."""


def failure_of(seen: Observation, told: Iterable[Failure]) -> Failure | None:
    """What a GPU job that is over failed of; None if it did not, or was stopped.

    The first that is known: what its GPU workers say of themselves (`told`), what its platform's codes say, that the
    platform has forgotten it. Nobody's words count.
    """
    if seen.phase in (Phase.SUCCEEDED, Phase.STOPPED):
        return None
    return gravest(told) or seen.failure or (Failure.LOST if seen.phase is Phase.GONE else Failure.UNKNOWN)
