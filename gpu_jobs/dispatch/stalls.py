"""What is the matter with GPU jobs that seem to do nothing: every stall has a name. Pure."""

from gpu_jobs.dispatch.state import JobView, Stall, StopJob
from gpu_jobs.durations import duration
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.orders import Policy

_START_S = 900.0
"""Longest start that is borne of an offer that is quicker; others have four times their own."""
_STARTS = 4.0
_WORRY = 0.5
"""Of the longest start; after that share of it a start is called long."""


def stall_of(job: JobView, policy: Policy) -> Stall | None:
    """What is the matter with a GPU job; None: nothing."""
    most_s = _longest_start_s(job)
    if job.is_starting or not job.has_lived:
        if job.age_s > most_s:
            return Stall.NEVER_STARTED
        return Stall.STARTING_TOO_LONG if job.age_s > _WORRY * most_s else None
    if job.workers_idle and job.workers_idle >= job.workers_alive:
        return Stall.STARVED
    return Stall.NO_PROGRESS if job.silent_s > policy.stall_s else None


def stop_for(job: JobView, stall: Stall | None) -> StopJob | None:
    """Stop what never started: it may be billed. What makes no progress its GPU workers see to themselves."""
    if stall is not Stall.NEVER_STARTED:
        return None
    reason = f"never started: ordered {duration(job.age_s)} ago, and no GPU worker has given a sign of life"
    return StopJob(order=job.order, reason=reason, failure=Failure.TIMEOUT)


def _longest_start_s(job: JobView) -> float:
    return max(_START_S, _STARTS * job.offer.cold_start_p90_s)
