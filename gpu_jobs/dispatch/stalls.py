"""Why a GPU job appears stuck. Pure."""

from gpu_jobs.dispatch.state import JobView, Stall, StopJob
from gpu_jobs.durations import duration
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.orders import Policy

_START_S = 900.0
"""A GPU job may always take this long to start, however short the cold starts of its offer are."""
_START_FACTOR = 4.0
"""A GPU job may take this many times the 90th percentile of its offer's cold starts."""
_WARN_SHARE = 0.5
"""After this share of the longest allowed start, a start is reported as taking too long."""


def stall_of(job: JobView, policy: Policy) -> Stall | None:
    """Return why a GPU job appears stuck; None if it does not."""
    longest_s = _longest_start_s(job)
    if job.is_starting or not job.has_lived:
        if job.age_s > longest_s:
            return Stall.NEVER_STARTED
        return Stall.STARTING_TOO_LONG if job.age_s > _WARN_SHARE * longest_s else None
    if job.workers_idle and job.workers_idle >= job.workers_alive:
        return Stall.STARVED
    return Stall.NO_PROGRESS if job.silent_s > policy.stall_s else None


def stop_for(job: JobView, stall: Stall | None) -> StopJob | None:
    """Stop a GPU job that never started, since it may be billed.

    GPU workers without progress end themselves, and need no stop.
    """
    if stall is not Stall.NEVER_STARTED:
        return None
    reason = f"never started: ordered {duration(job.age_s)} ago, and no GPU worker has sent a heartbeat"
    return StopJob(order=job.order, reason=reason, failure=Failure.TIMEOUT)


def _longest_start_s(job: JobView) -> float:
    return max(_START_S, _START_FACTOR * job.offer.cold_start_p90_s)
