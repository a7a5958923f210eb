"""The parts of a simulation: the real behaviour of offers, the work, random draws, and the outcome."""

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
class OfferBehaviour:
    """How one offer really behaves in a simulation, whatever `decide` assumes."""

    offer: Offer
    """The offer with its real price and billing rules."""
    start_s: Draw
    """Draws the cold start of a GPU worker, from the order to its first item."""
    speed: Draw
    """Draws the speed of a GPU worker; an L4's is 1."""
    stock: int | None = None
    """Maximum number of GPU workers alive at the same time; None means unlimited."""
    refusal: Failure = Failure.NO_CAPACITY
    """Why an order is refused that exceeds the stock."""
    is_down: bool = False
    """Whether every order fails immediately."""
    error_share: float = 0.0
    """Share of GPU jobs that fail after a minute without doing any work."""
    preemptions_per_hour: float = 0.0
    changes: tuple[tuple[float, dict[str, Any]], ...] = ()
    """Changes over time: from this many seconds on, the named fields have the given values."""

    def at(self, now_s: float) -> "OfferBehaviour":
        changed = {name: value for since, fields in self.changes if since <= now_s for name, value in fields.items()}
        return replace(self, **changed) if changed else self


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedWork:
    """The work of a simulated campaign, in chunks with equal numbers of items."""

    num_chunks: int
    items_per_chunk: int
    item_s: float
    """Mean duration of an item on a GPU worker of speed 1."""
    weight: Draw = lambda _: 1.0
    """Draws the duration of one chunk's items relative to the mean."""
    chunk_overhead_s: float = 0.0
    """Seconds needed to lease and settle a chunk, on any GPU worker."""
    poison_share: float = 0.0
    """Share of chunks with an item that kills GPU workers."""

    @property
    def num_items(self) -> int:
        return self.num_chunks * self.items_per_chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedOutcome:
    """The result of one simulated campaign."""

    usd: float
    finish_s: float
    """Seconds until the last item was settled or the campaign was closed."""
    is_complete: bool
    closed: str
    seconds: dict[str, float]
    """Billed GPU worker seconds by class of the waste ledger."""
    usd_by_platform: dict[str, float]
    items_by_platform: dict[str, int]
    orders: Counter[str]
    """Number of orders by platform."""
    refused: Counter[str]
    """Number of refused orders by platform."""
    first_item_s: float
    """Seconds until the first item was done; infinite if none was."""
    reasons: tuple[str, ...]
    """The reasons of all decisions with actions, in order."""


@dataclass(slots=True, eq=False)
class SimulatedChunk:
    items: int
    item_s: float
    extra_s: float = 0.0
    items_before: int = 0
    """Items of the same chunk that were finished by the attempt that this one hedges."""


@dataclass(slots=True, eq=False)
class SimulatedWorker:
    job: "SimulatedJob"
    ready_s: float
    speed: float
    chunk: SimulatedChunk | None = None
    chunk_since: float = 0.0
    idle_since: float = -1.0
    working_s: float = 0.0
    wasted_s: float = 0.0
    is_alive: bool = True
    twin: "SimulatedWorker | None" = None
    """The GPU worker that works on the same chunk, while it is hedged."""
    version: int = 0
    """Increases when its current chunk changes, so that events planned before are ignored."""


@dataclass(slots=True, eq=False)
class SimulatedJob:
    name: str
    behaviour: OfferBehaviour
    at: float
    expires_at: float
    reserved_usd: float
    num_workers: int
    workers: list[SimulatedWorker] = field(default_factory=list)
    alive: int = 0
    items: int = 0
    usd: float = 0.0
    last_item_s: float = 0.0


def lognormal(p50: float, p90: float) -> Draw:
    """Return a log-normal draw with this median and 90th percentile; a constant if they are equal or 0."""
    if p50 <= 0 or p90 <= p50:
        return lambda _: p50
    mu, sigma = math.log(p50), math.log(p90 / p50) / 1.2816
    return lambda rng: rng.lognormvariate(mu, sigma)


def as_offered(offer: Offer, *, speed_sigma: float = 0.1) -> OfferBehaviour:
    """Return the behaviour of an offer that is exactly as listed."""
    return OfferBehaviour(
        offer=offer,
        start_s=lognormal(offer.cold_start_p50_s, offer.cold_start_p90_s),
        speed=lognormal(offer.worker_speed, offer.worker_speed * math.exp(1.2816 * speed_sigma)),
        stock=offer.max_alive,
        preemptions_per_hour=offer.preemptions_per_hour,
    )
