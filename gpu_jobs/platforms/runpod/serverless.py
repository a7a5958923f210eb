"""GPU jobs as serverless endpoints: one endpoint for each GPU job, one queued job for each of its GPU workers.

A queued job cannot be looked up by name, but an endpoint can. The endpoint scales from zero to the ordered number of
workers, costs nothing without jobs, and is deleted with its queue when the GPU job is over or stopped. RunPod itself
ends a job soon after the GPU job's deadline: every job has an `executionTimeout` and a `ttl`.
"""

import re
import signal
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gpu_jobs.errors import OutcomeUnknownError, PlatformError
from gpu_jobs.jobs.failures import Failure, failure_of_exit, gravest
from gpu_jobs.jobs.orders import Handle, Observation, Order, Phase
from gpu_jobs.platforms.runpod.api import AbsentError, Account, Listing
from gpu_jobs.platforms.runpod.names import Name, environment
from gpu_jobs.platforms.runpod.replies import Created, Health, Jobs, JobStatus, Listed, WorkersOfEndpoint, read
from gpu_jobs.platforms.runpod.settings import RunPodSettings

_GRACE_S = 120.0
"""Seconds after the deadline, when GPU workers end by themselves, at which RunPod ends their jobs."""
_MIN_MS, _MAX_MS = 10_000, 7 * 24 * 3_600_000
_MAX_RETRIES = 3


@dataclass(slots=True)
class _Watched:
    """What this process remembers about one GPU job."""

    since: float = field(default_factory=time.monotonic)
    jobs: list[str] = field(default_factory=list)
    """Ids of the queued jobs that this process made."""
    has_run: bool = False
    over: Observation | None = None
    """How the GPU job ended: RunPod forgets it with the endpoint."""


class Endpoints:
    """The methods of `Platform`, for serverless endpoints. A handle's id is `serverless/<id of the endpoint>`."""

    def __init__(self, account: Account, settings: RunPodSettings, *, poll_s: float, find_lag_s: float) -> None:
        self._account = account
        self._settings = settings
        self._poll_s = poll_s
        self._find_lag_s = find_lag_s
        self._watched: defaultdict[str, _Watched] = defaultdict(_Watched)

    async def start(self, order: Order) -> Handle:
        """If its jobs cannot be queued, the endpoint is deleted; after a lost reply it is found by its name."""
        reply = await self._account.call("POST", "/v2/serverless", self._request(order))
        endpoint = read(Created, reply, "reply to a new endpoint")
        handle = _handle(order.name, endpoint.id)
        watched = self._watched[handle.id]
        try:
            for slot in range(order.num_workers):
                job = await self._account.ask_queue("POST", f"{endpoint.id}/run", _job(order, slot))
                watched.jobs.append(read(Created, job, "reply to a new job").id)
        except OutcomeUnknownError:
            raise
        except PlatformError:
            await self.stop(handle)
            raise
        return handle

    async def find(self, name: str) -> Handle | None:
        listing = await self._account.listing("serverless", max_age_s=self._poll_s)
        found = [each for order, each in _ours(listing) if order == name]
        oldest = min(found, key=lambda each: each.age, default=None)
        return None if oldest is None else _handle(name, oldest.id)

    async def observe(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        return {handle: await self._observe(handle) for handle in handles}

    async def stop(self, handle: Handle) -> None:
        watched = self._watched[handle.id]
        try:
            await self._delete(handle)
        except AbsentError:
            watched.over = watched.over or _GONE
        watched.over = watched.over or Observation(phase=Phase.STOPPED, reason="stopped")

    async def list_owned(self, prefix: str) -> Sequence[Handle]:
        found = _ours(await self._account.listing("serverless"))
        return [_handle(order, each.id) for order, each in found if order.startswith(prefix)]

    async def _observe(self, handle: Handle) -> Observation:
        watched = self._watched[handle.id]
        if watched.over is not None:
            return watched.over
        try:
            health = await self._account.ask_queue("GET", f"{_id(handle)}/health")
        except AbsentError:
            watched.over = _GONE
            return _GONE
        jobs = read(Health, health, "health of an endpoint").jobs
        if end := await self._end(handle, watched, jobs):
            watched.over = end
            with suppress(AbsentError):
                await self._delete(handle)
            return end
        watched.has_run = watched.has_run or jobs.in_progress > 0
        if not watched.has_run:
            return Observation(phase=Phase.STARTING)
        return Observation(phase=Phase.RUNNING, workers_alive=jobs.in_queue + jobs.in_progress)

    async def _end(self, handle: Handle, watched: _Watched, jobs: Jobs) -> Observation | None:
        """How the GPU job ended, or why it must be ended; None if it may go on."""
        waited_s = time.monotonic() - watched.since
        if jobs.retried >= _MAX_RETRIES:
            return Observation(phase=Phase.FAILED, reason=f"its containers crashed {jobs.retried} times")
        if jobs.in_queue or jobs.in_progress:
            may_be_late = not watched.has_run and not jobs.in_progress
            is_late = may_be_late and waited_s > self._settings.boot_minutes * 60
            return await self._end_of_late(handle) if is_late else None
        if jobs.failed:
            return await self._end_of_failed(handle, watched)
        if jobs.completed or watched.has_run:
            return Observation(phase=Phase.SUCCEEDED)
        if watched.jobs or waited_s <= self._find_lag_s:
            return None  # RunPod's counts may lag behind
        return Observation(phase=Phase.GONE, reason="made, but its jobs were never queued: the request was lost")

    async def _end_of_late(self, handle: Handle) -> Observation:
        found = await self._account.call("GET", f"/v2/serverless/{_id(handle)}/workers")
        minutes = f"nothing ran within {self._settings.boot_minutes:g} minutes"
        if read(WorkersOfEndpoint, found, "workers of an endpoint").summary.unhealthy:
            why, failure = "its workers are unhealthy, so the image is bad or cannot be pulled", Failure.IMAGE
        else:
            why, failure = "no capacity in this GPU pool", Failure.NO_CAPACITY
        return Observation(phase=Phase.FAILED, reason=f"{minutes}: {why}", failure=failure)

    async def _end_of_failed(self, handle: Handle, watched: _Watched) -> Observation:
        """Why the GPU job failed, by the results of its jobs, which RunPod keeps for half an hour."""
        ends = []
        for job in watched.jobs:
            with suppress(AbsentError):
                reply = await self._account.ask_queue("GET", f"{_id(handle)}/status/{job}")
                status = read(JobStatus, reply, "status of a job")
                ends += [job_end(status)] if status.status != "COMPLETED" else []
        return Observation(
            phase=Phase.FAILED,
            reason="; ".join(dict.fromkeys(end.reason for end in ends)) or "its serverless jobs failed",
            detail="\n".join(end.log for end in ends if end.log),
            failure=gravest(end.failure for end in ends),
        )

    async def _delete(self, handle: Handle) -> None:
        """Delete the endpoint with its workers and its queue."""
        await self._account.call("DELETE", f"/v2/serverless/{_id(handle)}")

    def _request(self, order: Order) -> dict[str, Any]:
        """The body of the request that creates the endpoint."""
        settings = self._settings
        name = Name(order.name, 0, order.num_workers - 1, int(order.expires_at.timestamp()))
        body: dict[str, Any] = {
            "name": str(name),
            "type": "QUEUE",
            "image": order.offer.image(settings.image),
            "gpu": {
                "pools": [order.offer.gpu],
                "count": max(1, order.offer.num_gpus),
                "minCudaVersion": settings.min_cuda or order.offer.cuda,
            },
            "workers": {"min": 0, "max": order.num_workers},
            "scaling": {"type": "REQUEST_COUNT", "requestCount": 1},
            "timeout": _left_ms(order),
            "disk": settings.disk_gb,
            "env": environment(settings),
            "args": "python -m gpu_jobs.platforms.runpod.serverless_worker",
        }
        if order.offer.region != "any":
            body["dataCenterIds"] = order.offer.region.split(",")
        if settings.volume:
            body["networkVolumes"] = [settings.volume]
        if settings.registry:
            body["registry"] = settings.registry
        return body


class JobEnd(NamedTuple):
    """How a queued job failed."""

    reason: str
    log: str
    failure: Failure | None


def job_end(status: JobStatus) -> JobEnd:
    """How a job failed: by RunPod's status, else by the first line of our handler's error; a log follows that line."""
    first_line, _, log = str(status.error or status.status).partition("\n")
    if status.status == "TIMED_OUT":
        return JobEnd(first_line, log, Failure.TIMEOUT)
    if found := _EXIT_CODE.fullmatch(first_line):
        return JobEnd(first_line, log, failure_of_exit(int(found[1])))
    if (found := _KILLED.fullmatch(first_line)) and found[1] in signal.Signals.__members__:
        return JobEnd(first_line, log, failure_of_exit(-signal.Signals[found[1]]))
    return JobEnd(first_line, log, None)


_EXIT_CODE, _KILLED = re.compile(r"exit code (\d+)"), re.compile(r"killed by (SIG\w+)")
"""The forms of that first line, as `gpu_jobs.platforms.runpod.serverless_worker` writes it."""
_GONE = Observation(phase=Phase.GONE, reason="not to be found on RunPod")


def _job(order: Order, slot: int) -> dict[str, Any]:
    limit_ms = _left_ms(order)
    return {
        "input": {"campaign": order.campaign_uri, "order": order.name, "slot": slot},
        "policy": {"executionTimeout": limit_ms, "ttl": limit_ms},
    }


def _left_ms(order: Order) -> int:
    left_s = order.expires_at.timestamp() + _GRACE_S - time.time()
    return int(min(_MAX_MS, max(_MIN_MS, left_s * 1000)))


def _ours(listing: Listing) -> Iterator[tuple[str, Listed]]:
    """Our endpoints in a listing, each with the name of its order."""
    for endpoint in listing.found:
        if name := Name.parse(endpoint["name"]):
            yield name.order, read(Listed, endpoint, "list of endpoints")


def _handle(order: str, endpoint: str) -> Handle:
    return Handle(platform="runpod", order=order, id=f"serverless/{endpoint}")


def _id(handle: Handle) -> str:
    return handle.id.partition("/")[2]
