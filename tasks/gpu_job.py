"""One GPU job as one task run. The campaign's loop starts and ends GPU jobs; the task only follows one."""

import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from gpu_jobs.campaign.progress import OVER, JobStatus
from tasks.outcome import end_in

_LOG_PAUSE_S = 10.0
"""Seconds between two updates of a running GPU job's log; a log line waits at most this long."""


class _Left(NamedTuple):
    """The message that the loop ended before the GPU job did."""

    reason: str


class Follower:
    """Passes the statuses of one GPU job from the loop's thread to the thread of its task run."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._messages: SimpleQueue[JobStatus | _Left] = SimpleQueue()
        self._last: JobStatus | None = None
        self._clock = clock
        self._log_due_at = 0.0

    def notify(self, job: JobStatus) -> None:
        """Pass a status on if something in it is new; new log lines alone at most every ten seconds. Never blocks."""
        last = self._last
        has_log = last is not None and job.log != last.log and self._clock() >= self._log_due_at
        if last is None or logged_fields(job) != logged_fields(last) or has_log:
            self._messages.put(job)
            self._last = job
            self._log_due_at = self._clock() + _LOG_PAUSE_S

    def leave(self, reason: str) -> None:
        """Announce that no more statuses will come; a task run that still waits ends with `reason`."""
        self._messages.put(_Left(reason))

    def next(self) -> JobStatus | _Left:
        """Wait for the next message. The last is the status of an ended GPU job, or says that the loop has ended."""
        return self._messages.get()


@task(name="gpu_job", task_run_name="{order}", cache_policy=NO_CACHE)
def gpu_job(order: str, follower: Follower) -> str:
    """Follow one GPU job to its end and return how it ended, in a sentence.

    If the GPU job fails, this task run fails; nothing else does.
    """
    logger = get_run_logger()
    last: JobStatus | None = None
    while not isinstance(message := follower.next(), _Left):
        if last is None or logged_fields(message) != logged_fields(last):
            logger.info("%s on %s (%s): %s", order, message.platform, message.machine, _sentence(message))
        if lines := new_lines(message.log, last.log if last else ""):
            logger.info("log from %s:\n%s", message.platform, lines)
        if message.status in OVER:
            return end_in(_final_state(message))
        last = message
    return end_in(Cancelled(message=message.reason))


def new_lines(log: str, before: str) -> str:
    """Return the lines of a log's end that were not in its earlier version `before`."""
    seen = set(before.splitlines())
    return "\n".join(line for line in log.splitlines() if line and line not in seen)


def _final_state(job: JobStatus) -> State[str]:
    sentence = _sentence(job)
    if job.status == "failed":
        return Failed(message=sentence)
    if job.status == "cancelled":
        return Cancelled(message=sentence)
    return Completed(message=sentence, data=sentence)


def _sentence(job: JobStatus) -> str:
    reason = f": {job.reason}" if job.reason else ""
    alive = "" if job.status in OVER else f"{job.workers_alive} of {job.workers} GPU workers alive, "
    return f"{job.status}{reason}; {alive}{job.items_done} items done, ${job.usd:.2f}"


def logged_fields(job: JobStatus) -> tuple[object, ...]:
    """Return the fields whose change is worth a line in the task run's log."""
    return job.status, job.workers_alive, job.reason
