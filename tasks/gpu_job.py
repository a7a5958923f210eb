"""One GPU job as one task run. The campaign's loop starts and ends GPU jobs; the task only follows."""

from queue import SimpleQueue
from typing import NamedTuple

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from gpu_jobs.observe import JobStatus
from tasks.outcome import end_in

_OVER = ("succeeded", "failed", "cancelled")


class _Left(NamedTuple):
    """The last word of a loop that ended before the GPU job did."""

    reason: str


class Follower:
    """Carries what the loop sees of one GPU job to its task run, from thread to thread."""

    def __init__(self) -> None:
        self._words: SimpleQueue[JobStatus | _Left] = SimpleQueue()
        self._last: JobStatus | None = None

    def tell(self, job: JobStatus) -> None:
        """Pass a status on, if it says something new. Never blocks."""
        if self._last is None or _told(job) != _told(self._last):
            self._words.put(job)
        self._last = job

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
    while not isinstance(word := follower.next(), _Left):
        logger.info("%s on %s (%s): %s", order, word.platform, word.gpu, _sentence(word))
        if word.status in _OVER:
            if word.log:
                logger.info("the end of its log:\n%s", word.log)
            return end_in(_final_state(word))
    return end_in(Cancelled(message=word.reason))


def _final_state(job: JobStatus) -> State[str]:
    sentence = _sentence(job)
    if job.status == "failed":
        return Failed(message=sentence)
    if job.status == "cancelled":
        return Cancelled(message=sentence)
    return Completed(message=sentence, data=sentence)


def _sentence(job: JobStatus) -> str:
    reason = f": {job.reason}" if job.reason else ""
    alive = "" if job.status in _OVER else f"{job.workers_alive} of {job.workers} GPU workers alive, "
    return f"{job.status}{reason}; {alive}{job.items_done} items done, ${job.usd:.2f}"


def _told(job: JobStatus) -> tuple[object, ...]:
    return job.status, job.workers_alive, job.reason
