"""One GPU job as one task run. The campaign's loop starts and ends GPU jobs; the task only follows."""

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
"""Between two looks at the log of a GPU job that runs; so long may its lines wait."""


class _Left(NamedTuple):
    """The last word of a loop that ended before the GPU job did."""

    reason: str


class Follower:
    """Carries what the loop sees of one GPU job to its task run, from thread to thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._words: SimpleQueue[JobStatus | _Left] = SimpleQueue()
        self._last: JobStatus | None = None
        self._clock = clock
        self._log_due_at = 0.0

    def tell(self, job: JobStatus) -> None:
        """Pass a status on, if it says something new; a longer log alone every ten seconds. Never blocks."""
        last = self._last
        has_log = last is not None and job.log != last.log and self._clock() >= self._log_due_at
        if last is None or told(job) != told(last) or has_log:
            self._words.put(job)
            self._last = job
            self._log_due_at = self._clock() + _LOG_PAUSE_S

    def leave(self, reason: str) -> None:
        """Nothing more will be told; a task run that still waits ends with `reason`."""
        self._words.put(_Left(reason))

    def next(self) -> JobStatus | _Left:
        """Wait for the next word. The last is a status that is over, or that the loop has left."""
        return self._words.get()


@task(name="gpu_job", task_run_name="{order}", cache_policy=NO_CACHE)
def gpu_job(order: str, follower: Follower) -> str:
    """Follow one GPU job to its end; return it in a sentence. A failed one is this task's failure, nobody else's."""
    logger = get_run_logger()
    last: JobStatus | None = None
    while not isinstance(word := follower.next(), _Left):
        if last is None or told(word) != told(last):
            logger.info("%s on %s (%s): %s", order, word.platform, word.machine, _sentence(word))
        if lines := new_lines(word.log, last.log if last else ""):
            logger.info("told by %s:\n%s", word.platform, lines)
        if word.status in OVER:
            return end_in(_final_state(word))
        last = word
    return end_in(Cancelled(message=word.reason))


def new_lines(log: str, before: str) -> str:
    """The lines of a log's end that were not in an earlier look at it."""
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


def told(job: JobStatus) -> tuple[object, ...]:
    """What makes a line in the task run's log when it changes."""
    return job.status, job.workers_alive, job.reason
