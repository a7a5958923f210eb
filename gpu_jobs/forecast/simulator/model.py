"""What a simulated world is made of: offers as they really are, work, chance, and what comes out."""

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.offers import Offer

Draw = Callable[[random.Random], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """How one offer really behaves, whatever is believed of it."""

    offer: Offer
    """With the price and the rules that are billed."""
    start_s: Draw
    """Cold start of a GPU worker, order to first item."""
    speed: Draw
    """Of a GPU worker: work a second, an L4's being 1."""
    stock: int | None = None
    """GPU workers that can be had at once; None: any number."""
    refusal: Failure = Failure.NO_CAPACITY
    is_down: bool = False
    """Every order fails at once."""
    error_share: float = 0.0
    """Of GPU jobs, those that live for a minute and come to nothing."""
    preemptions_per_hour: float = 0.0
    changes: tuple[tuple[float, dict[str, Any]], ...] = ()
    """From so many seconds on, these fields have these values."""

    def at(self, now_s: float) -> "Truth":
        changed = {name: value for since, fields in self.changes if since <= now_s for name, value in fields.items()}
        return replace(self, **changed) if changed else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done, in chunks of equal numbers of items."""

    num_chunks: int
    items_per_chunk: int
    item_s: float
    """Mean, on a GPU worker of speed 1."""
    weight: Draw = lambda _: 1.0
    """Of one chunk's items against the mean."""
    chunk_s: float = 0.0
    """To lease and to settle a chunk, on any GPU worker."""
    poison_share: float = 0.0
    """Of chunks that hold an item that kills GPU workers."""

    @property
    def num_items(self) -> int:
        return self.num_chunks * self.items_per_chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one simulated campaign."""

    usd: float
    finish_s: float
    """Until the last item was settled or the campaign was closed."""
    is_complete: bool
    closed: str
    seconds: dict[str, float]
    """GPU worker seconds by class of the waste ledger; billed ones."""
    usd_by_platform: dict[str, float]
    items_by_platform: dict[str, int]
    orders: Counter[str]
    """By platform: how often each was asked for GPU workers."""
    refused: Counter[str]
    """Of these, how often in vain."""
    first_items_s: float
    """Until the first item was done; infinite if none was."""
    reasons: tuple[str, ...]
    """Of the decisions that did something, in order."""


@dataclass(slots=True, eq=False)
class Chunk:
    items: int
    item_s: float
    extra_s: float = 0.0
    items_before: int = 0
    """Of the same chunk, finished by the attempt that this one hedges."""


@dataclass(slots=True, eq=False)
class Worker:
    job: "Job"
    ready_s: float
    speed: float
    chunk: Chunk | None = None
    chunk_since: float = 0.0
    idle_since: float = -1.0
    working_s: float = 0.0
    wasted_s: float = 0.0
    is_alive: bool = True
    twin: "Worker | None" = None
    """Who works on the same chunk, of a hedge."""
    version: int = 0
    """Of its current chunk; older events are void."""


@dataclass(slots=True, eq=False)
class Job:
    name: str
    truth: Truth
    at: float
    expires_at: float
    reserved_usd: float
    num_workers: int
    workers: list[Worker] = field(default_factory=list)
    alive: int = 0
    items: int = 0
    usd: float = 0.0
    last_item_s: float = 0.0


def lognormal(p50: float, p90: float) -> Draw:
    """Draws with these quantiles; a constant if they are equal or 0."""
    if p50 <= 0 or p90 <= p50:
        return lambda _: p50
    mu, sigma = math.log(p50), math.log(p90 / p50) / 1.2816
    return lambda rng: rng.lognormvariate(mu, sigma)


def as_offered(offer: Offer, *, speed_sigma: float = 0.1) -> Truth:
    """A world in which the offer is what it says."""
    return Truth(
        offer=offer,
        start_s=lognormal(offer.cold_start_p50_s, offer.cold_start_p90_s),
        speed=lognormal(offer.worker_speed, offer.worker_speed * math.exp(1.2816 * speed_sigma)),
        stock=offer.max_alive,
        preemptions_per_hour=offer.preemptions_per_hour,
    )
