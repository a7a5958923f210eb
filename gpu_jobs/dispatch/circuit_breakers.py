"""Which offers may be used now: circuit breakers, pauses for lack of capacity, and the campaign's retry budget. Pure.

There is one circuit breaker per location: platform, GPU type and region. Consecutive errors open it. After a pause,
which doubles each time, one GPU worker may try (half-open): its first item closes the breaker, its failure opens it
again. A capacity refusal is not an error: it pauses the location and halves the number of GPU workers requested next.
Retries at all locations share one token bucket, so that a campaign with many failures orders at most one GPU job per
minute.
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
"""A breaker opens after this many consecutive errors of any kind; some failures have a smaller budget."""
_BREAKER_PAUSE_S = (30.0, 600.0)
"""The first pause and the longest; each pause is twice the one before. The same holds for the two below."""
_CAPACITY_PAUSE_S = (10.0, 300.0)
_QUOTA_PAUSE_S = (60.0, 300.0)
_PROBE_REFUSALS = 3
"""After this many capacity refusals, stop holding back more expensive locations; that takes about a minute."""
_TOKENS = 6.0
_TOKENS_PER_S = 1 / 60
"""The retry budget: an order needs a token, an error costs one, and a result or a minute gives one back."""


class Location(NamedTuple):
    """What one circuit breaker is responsible for."""

    platform: str
    gpu: str
    region: str


def location_of(offer: Offer) -> Location:
    return Location(offer.platform, offer.gpu, offer.region)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """Whether a location may be used now, and for how many GPU workers."""

    max_workers: int | None = None
    """Maximum number of GPU workers that one order may request; None means no limit."""
    why: str = ""
    """Why there is a limit, for people."""
    later_workers: int = 0
    """Number of GPU workers that are expected to be available after the current pause."""
    later_s: float = 0.0
    """Seconds until the current pause ends."""
    is_probing: bool = False
    """Whether smaller orders are finding out how much capacity the location has, after it refused a larger one."""
    is_final: bool = False
    """Whether the location is not used again in this campaign."""


@dataclass(slots=True)
class _Record:
    """The recent failures and refusals of one location."""

    errors: int = 0
    errors_at: datetime | None = None
    budget: int = _BREAK_AFTER
    refusals: int = 0
    refused_at: datetime | None = None
    refused_workers: int = 0
    is_quota: bool = False
    message: str = ""

    def note(self, end: OrderEnd, failure: Failure) -> None:
        self.message = end.message or failure.value
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

    def reset(self) -> None:
        """Forget all failures and refusals, since a GPU job there has finished items."""
        self.errors = self.refusals = 0


def circuit_breakers(view: CampaignView, offers: Sequence[Offer], now: datetime) -> dict[Location, CircuitBreaker]:
    """Return the circuit breaker of each offer's location."""
    dropped = _dropped(view.ends, offers)
    records = _records(view, now)
    return {
        location: CircuitBreaker(max_workers=0, why=dropped[location], is_final=True)
        if location in dropped
        else _circuit_breaker(records.get(location, _Record()), _jobs_at(view.jobs, location), now)
        for location in map(location_of, offers)
    }


def retry_pause_s(view: CampaignView, now: datetime) -> float:
    """Return the seconds until the retry budget allows another order; 0 means now."""
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
    """Whether a GPU job got nothing done because of an error (not, for example, a preemption)."""
    if end.items_done or end.is_stopped:
        return False
    return end.failure is None or TREATMENTS[end.failure].is_error


def _records(view: CampaignView, now: datetime) -> dict[Location, _Record]:
    records: dict[Location, _Record] = {}
    for end in view.ends:
        record = records.setdefault(location_of(end.offer), _Record())
        if end.items_done:
            record.reset()
        elif end.failure is not None:
            record.note(end, end.failure)
    for job in view.jobs:
        known = records.get(location_of(job.offer))
        if known is not None and job.items_done and _is_after(job, known.errors_at, now):
            known.errors = 0
    return records


def _circuit_breaker(record: _Record, jobs: Sequence[JobView], now: datetime) -> CircuitBreaker:
    if record.errors >= record.budget and record.errors_at is not None:
        pause_ends_at = record.errors_at + _pause(_BREAKER_PAUSE_S, record.errors - record.budget)
        failed = f"{record.errors} GPU jobs in a row failed there; the last message: {record.message}"
        if now < pause_ends_at:
            return CircuitBreaker(max_workers=0, why=f"{failed}; one GPU worker tries again {_in(pause_ends_at - now)}")
        if any(_is_after(job, record.errors_at, now) for job in jobs):
            return CircuitBreaker(max_workers=0, why=f"{failed}; one GPU worker is trying")
        return CircuitBreaker(max_workers=1, why=f"{failed}; one GPU worker tries again")
    if record.refusals and record.refused_at is not None:
        pause = timedelta()
        if record.refusals > 1 or record.refused_workers <= 1 or record.is_quota:
            step = _QUOTA_PAUSE_S if record.is_quota else _CAPACITY_PAUSE_S
            pause = _pause(step, record.refusals - 1)
        pause_ends_at = record.refused_at + pause
        granted = sum(job.num_workers for job in jobs if _is_after(job, record.refused_at, now))
        fewer = max(1, (granted or record.refused_workers) // 2)
        is_probing = record.refusals <= _PROBE_REFUSALS
        if now < pause_ends_at:
            why = f"{record.message}; the next request follows {_in(pause_ends_at - now)}"
            later_s = (pause_ends_at - now).total_seconds()
            return CircuitBreaker(max_workers=0, why=why, later_workers=fewer, later_s=later_s, is_probing=is_probing)
        return CircuitBreaker(max_workers=fewer, why=record.message, is_probing=is_probing)
    return CircuitBreaker()


def _dropped(ends: Iterable[OrderEnd], offers: Sequence[Offer]) -> dict[Location, str]:
    """Return the locations that are not used any more, and why."""
    dropped: dict[Location, str] = {}
    rejected: set[str] = set()
    for end in ends:
        remedy = TREATMENTS[end.failure].remedy if end.failure else None
        if remedy is Remedy.DROP_PLATFORM or (remedy is Remedy.DROP_OFFER and end.offer.platform in rejected):
            gone = [offer for offer in offers if offer.platform == end.offer.platform]
        elif remedy is Remedy.DROP_OFFER:
            gone = [end.offer]  # perhaps only this GPU type is wrong; a second rejection means the platform
            rejected.add(end.offer.platform)
        elif remedy is Remedy.MORE_MEMORY and not end.items_done:
            gone = _with_no_more_memory(end.offer, offers)
        else:
            continue
        dropped.update(
            {location_of(offer): f"{offer.platform} refuses: {end.message or end.failure}" for offer in gone}
        )
    return dropped


def _with_no_more_memory(offer: Offer, offers: Sequence[Offer]) -> list[Offer]:
    """Return the offers that would run out of memory too; none if there is no offer with more memory."""
    if not offer.gpu_memory_gib or all(each.gpu_memory_gib <= offer.gpu_memory_gib for each in offers):
        return []
    return [each for each in offers if each.gpu_memory_gib <= offer.gpu_memory_gib]


def _jobs_at(jobs: Iterable[JobView], location: Location) -> list[JobView]:
    return [job for job in jobs if location_of(job.offer) == location]


def _is_after(job: JobView, at: datetime | None, now: datetime) -> bool:
    return at is None or now - timedelta(seconds=job.age_s) >= at


def _pause(step: tuple[float, float], times: int) -> timedelta:
    first, longest = step
    return timedelta(seconds=min(longest, first * 2 ** min(times, 10)))


def _in(wait: timedelta) -> str:
    return f"in {duration(wait.total_seconds())}"
