"""Which offers may be used now: circuit breakers, capacity, and the fleet's budget of retries. Pure.

A breaker belongs to a place: platform, GPU type, region. Errors in a row open it; after a pause that doubles, one GPU
worker may try (half-open); its first item closes the breaker, its failure opens it again. A refusal for want of
capacity is no error: it pauses the place, and halves what is asked for next. Retries over all places come out of one
token bucket, so that a fleet in trouble orders at most one GPU job a minute.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from gpu_jobs.dispatch.state import CampaignView, JobView, OrderEnd
from gpu_jobs.durations import duration
from gpu_jobs.jobs.failures import TREATMENTS, Failure, Remedy
from gpu_jobs.jobs.offers import Offer

_BREAK_AFTER = 3
"""Errors in a row, whatever they are; some failures have a smaller budget."""
_BREAKER_PAUSE_S = (30.0, 600.0)
_CAPACITY_PAUSE_S = (10.0, 300.0)
_QUOTA_PAUSE_S = (60.0, 300.0)
_SEARCH_REFUSALS = 3
"""For so many refusals dearer places wait until it is known how much a cheaper one has: about a minute."""
_TOKENS = 6.0
_TOKENS_PER_S = 1 / 60


class Place(NamedTuple):
    """What a circuit breaker watches."""

    platform: str
    gpu: str
    region: str


def place_of(offer: Offer) -> Place:
    return Place(offer.platform, offer.gpu, offer.region)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Whether one place may be used now."""

    most: int | None = None
    """GPU workers that may be asked for in one order; None: any number."""
    why: str = ""
    """Why not more, in words."""
    later: int = 0
    """GPU workers that may be asked for after a pause; 0: none are counted on."""
    later_s: float = 0.0
    """Until then."""
    is_searched: bool = False
    """It has lately refused what was asked, and smaller orders find out how much it has."""
    is_final: bool = False
    """It never opens again in this campaign."""


@dataclass(slots=True)
class _Record:
    """What the ends so far tell of one place."""

    errors: int = 0
    errors_at: datetime | None = None
    budget: int = _BREAK_AFTER
    refusals: int = 0
    refused_at: datetime | None = None
    refused_workers: int = 0
    is_quota: bool = False
    told: str = ""

    def note(self, end: OrderEnd, failure: Failure) -> None:
        self.told = end.told or failure.value
        treatment = TREATMENTS[failure]
        if treatment.is_error:
            self.errors += 1
            self.errors_at = end.at
            self.budget = min(_BREAK_AFTER, treatment.budget or _BREAK_AFTER)
        else:
            self.refusals += 1
            self.refused_at = end.at
            self.refused_workers = end.num_workers
            self.is_quota = failure is Failure.QUOTA

    def works(self) -> None:
        self.errors = self.refusals = 0


def gates(view: CampaignView, offers: Sequence[Offer], now: datetime) -> dict[Place, Gate]:
    """The gate of each offer's place."""
    dropped = _dropped(view.ends, offers)
    records = _records(view, now)
    return {
        place: Gate(most=0, why=dropped[place], is_final=True)
        if place in dropped
        else _gate(records.get(place, _Record()), _jobs_at(view.jobs, place), now)
        for place in map(place_of, offers)
    }


def retry_pause_s(view: CampaignView, now: datetime) -> float:
    """Seconds until the fleet may order again; 0: at once."""
    tokens, at = _TOKENS, None
    for end in view.ends:
        if at is not None:
            tokens = min(_TOKENS, tokens + _TOKENS_PER_S * (end.at - at).total_seconds())
        if is_fruitless_error(end):
            tokens -= 1
        elif end.items_done:
            tokens = min(_TOKENS, tokens + 1)
        at = end.at
    if at is not None:
        tokens += _TOKENS_PER_S * (now - at).total_seconds()
    return 0.0 if tokens >= 1 else (1 - tokens) / _TOKENS_PER_S


def is_fruitless_error(end: OrderEnd) -> bool:
    """It got nothing done, and for no reason that is nobody's fault."""
    if end.items_done or end.is_stopped:
        return False
    return end.failure is None or TREATMENTS[end.failure].is_error


def _records(view: CampaignView, now: datetime) -> dict[Place, _Record]:
    records: dict[Place, _Record] = {}
    for end in view.ends:
        record = records.setdefault(place_of(end.offer), _Record())
        if end.items_done:
            record.works()
        elif end.failure is not None:
            record.note(end, end.failure)
    for job in view.jobs:
        known = records.get(place_of(job.offer))
        if known is not None and job.items_done and _is_after(job, known.errors_at, now):
            known.errors = 0
    return records


def _gate(record: _Record, jobs: Sequence[JobView], now: datetime) -> Gate:
    if record.errors >= record.budget and record.errors_at is not None:
        opens_at = record.errors_at + _pause(_BREAKER_PAUSE_S, record.errors - record.budget)
        told = f"{record.errors} GPU jobs in a row failed there, the last: {record.told}"
        if now < opens_at:
            return Gate(most=0, why=f"{told}; one GPU worker tries again {_in(opens_at - now)}")
        if any(_is_after(job, record.errors_at, now) for job in jobs):
            return Gate(most=0, why=f"{told}; one GPU worker is trying")
        return Gate(most=1, why=f"{told}; one GPU worker tries again")
    if record.refusals and record.refused_at is not None:
        pause = timedelta()
        if record.refusals > 1 or record.refused_workers <= 1 or record.is_quota:
            step = _QUOTA_PAUSE_S if record.is_quota else _CAPACITY_PAUSE_S
            pause = _pause(step, record.refusals - 1)
        opens_at = record.refused_at + pause
        granted = sum(job.num_workers for job in jobs if _is_after(job, record.refused_at, now))
        fewer = max(1, (granted or record.refused_workers) // 2)
        is_searched = record.refusals <= _SEARCH_REFUSALS
        if now < opens_at:
            why = f"{record.told}; asked again {_in(opens_at - now)}"
            later_s = (opens_at - now).total_seconds()
            return Gate(most=0, why=why, later=fewer, later_s=later_s, is_searched=is_searched)
        return Gate(most=fewer, why=record.told, is_searched=is_searched)
    return Gate()


def _dropped(ends: Iterable[OrderEnd], offers: Sequence[Offer]) -> dict[Place, str]:
    """Places that are used no more, and why."""
    dropped: dict[Place, str] = {}
    rejected: set[str] = set()
    for end in ends:
        remedy = TREATMENTS[end.failure].remedy if end.failure else None
        if remedy is Remedy.DROP_PLATFORM or (remedy is Remedy.DROP_OFFER and end.offer.platform in rejected):
            gone = [offer for offer in offers if offer.platform == end.offer.platform]
        elif remedy is Remedy.DROP_OFFER:
            gone = [end.offer]  # a GPU type may be what is wrong; a second time it is not
            rejected.add(end.offer.platform)
        elif remedy is Remedy.MORE_MEMORY and not end.items_done:
            gone = _with_no_more_memory(end.offer, offers)
        else:
            continue
        dropped.update({place_of(offer): f"{offer.platform} refuses: {end.told or end.failure}" for offer in gone})
    return dropped


def _with_no_more_memory(offer: Offer, offers: Sequence[Offer]) -> list[Offer]:
    """Offers that would run out of memory too; none if there is no larger one, since it may be another's memory."""
    if not offer.gpu_memory_gib or all(each.gpu_memory_gib <= offer.gpu_memory_gib for each in offers):
        return []
    return [each for each in offers if each.gpu_memory_gib <= offer.gpu_memory_gib]


def _jobs_at(jobs: Iterable[JobView], place: Place) -> list[JobView]:
    return [job for job in jobs if place_of(job.offer) == place]


def _is_after(job: JobView, at: datetime | None, now: datetime) -> bool:
    return at is None or now - timedelta(seconds=job.age_s) >= at


def _pause(step: tuple[float, float], times: int) -> timedelta:
    first, most = step
    return timedelta(seconds=min(most, first * 2 ** min(times, 10)))


def _in(wait: timedelta) -> str:
    return f"in {duration(wait.total_seconds())}"
