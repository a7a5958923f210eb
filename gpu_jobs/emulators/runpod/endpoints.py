"""Emulated serverless endpoints: the queue, its workers and their scaling, and the calls of RunPod's worker SDK."""

import asyncio
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from gpu_jobs.emulators.runpod.bodies import CreateEndpoint, Policy
from gpu_jobs.emulators.runpod.container import Container
from gpu_jobs.emulators.runpod.errors import ApiError

if TYPE_CHECKING:
    from gpu_jobs.emulators.runpod.world import World

JobStatus = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"]
_RESULTS_KEPT_S = 1800.0
_SWEEP_S = 0.1
_T = TypeVar("_T")
_ids = itertools.count()


@dataclass(slots=True, kw_only=True)
class Job:
    """One queued request."""

    id: str
    input: Any
    policy: Policy
    status: JobStatus = "IN_QUEUE"
    worker: str = ""
    num_deliveries: int = 0
    output: Any = None
    error: str = ""
    created_at: float = field(default_factory=time.time)
    started_at: float = 0.0
    ended_at: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.status not in ("IN_QUEUE", "IN_PROGRESS")

    def end(self, status: JobStatus, *, output: Any = None, error: str = "") -> None:
        self.status, self.output, self.error, self.ended_at = status, output, error, time.time()

    @property
    def resource(self) -> dict[str, Any]:
        """The job as `status` shows it."""
        shown: dict[str, Any] = {"id": self.id, "status": self.status}
        if self.started_at:
            shown |= {"workerId": self.worker, "delayTime": int(1000 * (self.started_at - self.created_at))}
        if self.ended_at:
            shown["executionTime"] = int(1000 * (self.ended_at - (self.started_at or self.ended_at)))
        if self.error:
            shown["error"] = self.error
        if self.output is not None:
            shown["output"] = self.output
        return shown


@dataclass(slots=True, kw_only=True)
class _Worker:
    id: str
    container: Container
    idle_since: float = field(default_factory=time.time)
    has_asked: bool = False
    is_ending: bool = False


class Endpoint:
    """An endpoint. It starts workers as jobs are queued, up to `workers.max`, and ends idle ones."""

    def __init__(self, world: "World", endpoint_id: str, body: CreateEndpoint) -> None:
        self.id = endpoint_id
        self.body = body
        self.created_at = time.time()
        self.jobs: dict[str, Job] = {}
        self.num_retried = 0
        self._world = world
        self._queue: deque[Job] = deque()
        self._workers: dict[str, _Worker] = {}
        self._lives: set[asyncio.Task[None]] = set()
        self._to_stop: dict[str, list[str]] = {}
        self._is_deleted = self._is_crashing = False
        self._sweeper = asyncio.create_task(self._sweep())

    def run(self, asked: Any, policy: Policy) -> Job:
        """Queue a job."""
        job = Job(id=f"job{next(_ids):05d}-e1", input=asked, policy=policy)
        self.jobs[job.id] = job
        self._queue.append(job)
        self._scale()
        return job

    def status(self, job_id: str) -> Job:
        if job_id not in self.jobs:
            raise ApiError(404, f"job {job_id} not found")
        return self.jobs[job_id]

    def cancel(self, job_id: str) -> Job:
        job = self.status(job_id)
        if not job.is_over:
            self._end_early(job, "CANCELLED")
        return job

    async def take(self, worker_id: str, wait_s: float) -> Job | None:
        """Return the next job for a worker; wait for one, as RunPod does."""

        def now() -> Job | None:
            worker = self._workers.get(worker_id)
            if worker is None or worker.is_ending or not self._queue:
                return None
            job = self._queue.popleft()
            job.status, job.worker, job.started_at = "IN_PROGRESS", worker_id, time.time()
            job.num_deliveries += 1
            return job

        if worker_id in self._workers:
            self._workers[worker_id].has_asked = True
        return await self._wait_for(now, wait_s)

    async def stops(self, worker_id: str, wait_s: float) -> list[str]:
        """Return the ids of jobs that a worker shall stop; wait for some."""
        return await self._wait_for(lambda: self._to_stop.pop(worker_id, []), wait_s) or []

    def done(self, worker_id: str, job_id: str, result: Mapping[str, Any]) -> None:
        """Handle a result. It is ignored if it is late, or comes from a worker that has lost the job."""
        job = self.jobs.get(job_id)
        if job is None or job.is_over or job.worker != worker_id or result.get("status") == "IN_PROGRESS":
            return
        if "error" in result:
            job.end("FAILED", error=str(result["error"]))
        else:
            job.end("COMPLETED", output=result.get("output"))
        if worker := self._workers.get(worker_id):
            worker.idle_since = time.time()

    def kill_worker(self) -> bool:
        """Kill the container of a working worker, as a dying host does; return False if no worker has a job."""
        at_work = [job.worker for job in self.jobs.values() if job.status == "IN_PROGRESS"]
        if at_work:
            self._workers[at_work[0]].container.kill()
        return bool(at_work)

    async def delete(self) -> None:
        """Delete the endpoint and end its workers, whatever they are doing."""
        self._is_deleted = True
        self._sweeper.cancel()
        for worker in self._workers.values():
            self._end_worker(worker)
        if self._lives:
            await asyncio.wait(self._lives)

    async def _wait_for(self, look: Callable[[], _T], wait_s: float) -> _T:
        give_up_at = time.monotonic() + wait_s
        while not (found := look()) and time.monotonic() < give_up_at and not self._is_deleted:  # noqa: ASYNC110
            await asyncio.sleep(_SWEEP_S / 2)
        return found

    def _scale(self) -> None:
        unfinished = sum(not job.is_over for job in self.jobs.values())
        living = sum(not worker.is_ending for worker in self._workers.values())
        for _ in range(min(self.body.workers.max, unfinished) - living):
            life = asyncio.create_task(self._live(f"worker{next(_ids):05d}"))
            self._lives.add(life)
            life.add_done_callback(self._lives.discard)

    async def _live(self, worker_id: str) -> None:
        image = self._world.images.get(self.body.image)
        if image is None:  # the pull is retried forever
            return
        log = self._world.log_dir / f"{self.body.name}.{worker_id}.log"
        container = Container([*image.argv, *self.body.args.split()], self._environment(worker_id, image.env), log)
        line = self._world.bill.begin(f"{self.body.name}/{worker_id}", self._world.pool_usd_per_hour(self.body), 0)
        self._workers[worker_id] = _Worker(id=worker_id, container=container)
        try:
            code = await container.run()
        finally:
            line.ended_at = time.time()
            self._is_crashing = not self._workers.pop(worker_id).has_asked
        for job in self.jobs.values():
            if job.worker == worker_id and job.status == "IN_PROGRESS":
                self._lose(job, code)
        await asyncio.sleep(self._world.restart_s)
        if not self._is_deleted:
            self._scale()

    def _lose(self, job: Job, code: int) -> None:
        """The job's worker died, so the job is redelivered, a few times."""
        if self._is_deleted or job.num_deliveries > self._world.max_redeliveries:
            job.end("FAILED", error=f"the worker was killed or exited: code {code}")
        else:
            self.num_retried += 1
            job.status = "IN_QUEUE"
            self._queue.appendleft(job)

    def _end_early(self, job: Job, status: JobStatus) -> None:
        if job.status == "IN_PROGRESS":
            self._to_stop.setdefault(job.worker, []).append(job.id)
        else:
            self._queue.remove(job)
        job.end(status)

    def _end_worker(self, worker: _Worker) -> None:
        worker.is_ending = True
        worker.container.terminate()
        asyncio.get_running_loop().call_later(self._world.grace_s, worker.container.kill)

    async def _sweep(self) -> None:
        """Enforce the time limits of jobs and results, and end idle workers."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = time.time()
            for job in list(self.jobs.values()):
                if now - job.created_at > job.policy.ttl / 1000 or (
                    job.is_over and now - job.ended_at > _RESULTS_KEPT_S
                ):
                    if not job.is_over:
                        self._end_early(job, "TIMED_OUT")
                    del self.jobs[job.id]
                elif job.status == "IN_PROGRESS" and now - job.started_at > job.policy.execution_timeout / 1000:
                    self._end_early(job, "TIMED_OUT")
            busy = {job.worker for job in self.jobs.values() if job.status == "IN_PROGRESS"}
            for worker in self._workers.values():
                is_idle = worker.id not in busy and not self._queue
                if is_idle and not worker.is_ending and now - worker.idle_since > self._world.worker_idle_s:
                    self._end_worker(worker)

    def _environment(self, worker_id: str, image: Mapping[str, str]) -> dict[str, str]:
        base, query = f"{self._world.url}/ai/v2/{self.id}", "gpu=emulated"
        return {
            "HOME": "/root",
            **image,
            **self._world.resolved(self.body.env),
            "RUNPOD_POD_ID": worker_id,
            "RUNPOD_ENDPOINT_ID": self.id,
            "RUNPOD_AI_API_KEY": self._world.key,
            "RUNPOD_LOG_LEVEL": "INFO",
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?{query}",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID?{query}",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?{query}",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?{query}",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",  # these checks contact 8.8.8.8; there is no network here
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }

    @property
    def health(self) -> dict[str, Any]:
        counts = Counter(job.status for job in self.jobs.values())
        return {
            "jobs": {
                "completed": counts["COMPLETED"],
                "failed": counts["FAILED"] + counts["TIMED_OUT"],
                "inProgress": counts["IN_PROGRESS"],
                "inQueue": counts["IN_QUEUE"],
                "retried": self.num_retried,
            },
            "workers": {"idle": self.workers["summary"]["idle"], "running": self.workers["summary"]["running"]},
        }

    @property
    def workers(self) -> dict[str, Any]:
        """Workers as `/v2/serverless/{id}/workers` shows them; those without image or ending at once are unhealthy."""
        busy = {job.worker for job in self.jobs.values() if job.status == "IN_PROGRESS"}
        found = [
            {"id": worker.id, "status": _worker_status(worker, busy), "gpuCount": self.body.gpu.count, "isStale": False}
            for worker in self._workers.values()
        ]
        if self._queue and (self._is_crashing or self.body.image not in self._world.images):
            found.append({"id": "unhealthy", "status": "UNHEALTHY", "gpuCount": self.body.gpu.count, "isStale": False})
        counts = Counter(str(worker["status"]) for worker in found)
        names = ("running", "idle", "initializing", "throttled", "unhealthy")
        return {"workers": found, "summary": {name: counts[name.upper()] for name in names} | {"total": len(found)}}

    @property
    def resource(self) -> dict[str, Any]:
        """The endpoint as REST v2 shows it."""
        return self.body.model_dump(by_alias=True, exclude_none=True) | {
            "id": self.id,
            "createdAt": datetime.fromtimestamp(self.created_at, UTC).isoformat(),
        }


def _worker_status(worker: _Worker, busy: set[str]) -> str:
    if worker.id in busy:
        return "RUNNING"
    return "IDLE" if worker.has_asked else "INITIALIZING"
