"""GPU workers as tasks of Google Cloud Run Jobs: one Job resource, run once, for each GPU job.

RunJob is not idempotent: called twice, it runs the job twice. So only `start` calls it, once, after its own CreateJob
has succeeded, which can succeed only once per name. If the RunJob request was lost, the Job resource is found by name
and is `Phase.STARTING`. If no execution appears within the call's deadline, the Job resource is deleted, so that a late
RunJob fails, and the GPU job is `Phase.GONE`: its order ends, and the next order has another name.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.cloud import run_v2

from gpu_jobs.errors import NoCapacityError, OutcomeUnknownError, RefusedError, RejectedError
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Handle, Observation, Order, Phase
from gpu_jobs.platforms.cloud_run.api import Clients, InactiveError, open_clients, translate
from gpu_jobs.platforms.cloud_run.jobs import job_resource, observation, offers_in
from gpu_jobs.platforms.cloud_run.settings import CloudRunSettings

DEADLINE_S = 30.0
"""Seconds that one call to the service may take."""
_KEEP_S = 3600.0
"""Seconds after which `list_owned` deletes a finished Job resource that nobody has observed."""
_MAX_CALLS = 8
_PAGE = 100


class CloudRunPlatform:
    """Implements `Platform`. A handle's id is the full name of the Job resource.

    Raises:
        RefusedError: a setting is missing, or the region lacks the GPU type.
    """

    name = "cloud_run"

    def __init__(self, settings: CloudRunSettings | None = None, *, deadline_s: float = DEADLINE_S) -> None:
        self._settings = settings or CloudRunSettings()
        for field in ("project", "region", "image"):
            if not getattr(self._settings, field):
                raise RefusedError(f"FANFOLD_CLOUD_RUN_{field.upper()}", "is not set; the platform cloud_run needs it")
        self._offers = offers_in(self._settings)
        self._parent = f"projects/{self._settings.project}/locations/{self._settings.region}"
        self._deadline_s = deadline_s
        self.find_lag_s = 3 * deadline_s  # create, wait for it, run
        self._opened: tuple[asyncio.AbstractEventLoop, Clients] | None = None
        self._executions: dict[str, str] = {}
        self._not_run_since: dict[str, float] = {}
        self._over: dict[Handle, Observation] = {}
        """How GPU jobs ended: the Job resource is deleted after it, and the service forgets."""

    def offers(self) -> Sequence[Offer]:
        return self._offers

    async def start(self, order: Order) -> Handle:
        name = f"{self._parent}/jobs/{order.name}"
        job = job_resource(order, self._settings, datetime.now(UTC))
        request = run_v2.CreateJobRequest(parent=self._parent, job_id=order.name, job=job)
        created = await self._call("run.jobs.create", self._clients.jobs.create_job, request)
        try:
            with translate("run.jobs.create", self._parent):
                await asyncio.wait_for(created.result(), self._deadline_s)
            await self._call("run.jobs.run", self._clients.jobs.run_job, run_v2.RunJobRequest(name=name))
        except (NoCapacityError, RejectedError):
            await self._delete(name)
            raise
        return self._handle(name)

    async def find(self, name: str) -> Handle | None:
        job = await self._job(f"{self._parent}/jobs/{name}")
        return None if job is None else self._handle(job.name)

    async def observe(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        limit = asyncio.Semaphore(_MAX_CALLS)

        async def one(handle: Handle) -> Observation:
            async with limit:
                return await self._observe(handle)

        return dict(zip(handles, await asyncio.gather(*map(one, handles)), strict=True))

    async def stop(self, handle: Handle) -> None:
        if handle in self._over:
            return
        execution = await self._execution_name(handle.id)
        if execution is None:
            await self._delete(handle.id)
            return
        request = run_v2.CancelExecutionRequest(name=execution)
        await self._look("run.executions.cancel", self._clients.executions.cancel_execution, request)

    async def list_owned(self, prefix: str) -> Sequence[Handle]:
        """GPU jobs that are alive or never ran; Job resources that ended an hour ago are deleted on the way."""
        request = run_v2.ListJobsRequest(parent=self._parent, page_size=_PAGE)
        owned: list[Handle] = []
        for job in await self._all("run.jobs.list", self._clients.jobs.list_jobs, request):
            if not job.name.rpartition("/")[2].startswith(prefix):
                continue
            completed = job.latest_created_execution.completion_time
            if not completed:
                owned.append(self._handle(job.name))
            elif (datetime.now(UTC) - completed).total_seconds() > _KEEP_S:
                await self._delete(job.name)
        return owned

    async def _observe(self, handle: Handle) -> Observation:
        if handle in self._over:
            return self._over[handle]
        name = await self._execution_name(handle.id)
        if name is None:
            return await self._observe_not_run(handle)
        get = run_v2.GetExecutionRequest(name=name)
        execution = await self._look("run.executions.get", self._clients.executions.get_execution, get)
        if execution is None:
            return self._end(handle, Observation(phase=Phase.GONE, reason="its Job resource was deleted"))
        seen = observation(execution, ())
        if seen.phase.is_over:
            seen = self._end(handle, observation(execution, await self._tasks(name)))
            await self._delete(handle.id)
        return seen

    async def _observe_not_run(self, handle: Handle) -> Observation:
        """A Job resource without an execution: its run is still to come, or was lost; then it is deleted."""
        if await self._job(handle.id) is None:
            return self._end(handle, Observation(phase=Phase.GONE, reason="not to be found on its platform"))
        since = self._not_run_since.setdefault(handle.id, time.monotonic())
        if time.monotonic() - since <= self._deadline_s:
            return Observation(phase=Phase.STARTING)
        delete = run_v2.DeleteJobRequest(name=handle.id)
        await self._look(
            "run.jobs.delete", self._clients.jobs.delete_job, delete
        )  # if this fails, the GPU job is not over
        return self._end(handle, Observation(phase=Phase.GONE, reason="created, but never run: the request was lost"))

    def _end(self, handle: Handle, seen: Observation) -> Observation:
        self._over[handle] = seen
        return seen

    async def _execution_name(self, job_name: str) -> str | None:
        """The one execution of a Job resource; None if there is none yet, or no such Job resource."""
        if job_name not in self._executions:
            job = await self._job(job_name)
            found = job.latest_created_execution.name if job is not None else ""
            if job is not None and not found:
                request = run_v2.ListExecutionsRequest(parent=job_name)
                listed = await self._all("run.executions.list", self._clients.executions.list_executions, request)
                found = listed[0].name if listed else ""
            if not found:
                return None
            short = found.rpartition("/")[2]  # whether the service gives a full name here is not documented
            self._executions[job_name] = f"{job_name}/executions/{short}"
        return self._executions[job_name]

    async def _job(self, name: str) -> run_v2.Job | None:
        job: run_v2.Job | None = await self._look(
            "run.jobs.get", self._clients.jobs.get_job, run_v2.GetJobRequest(name=name)
        )
        return job

    async def _tasks(self, execution: str) -> Sequence[run_v2.Task]:
        request = run_v2.ListTasksRequest(parent=execution, page_size=_PAGE)
        try:
            return await self._all("run.tasks.list", self._clients.tasks.list_tasks, request)
        except InactiveError:  # another orchestrator has seen the end too, and deleted the Job resource
            return ()

    async def _delete(self, name: str) -> None:
        """Delete a Job resource. Failures are ignored: `list_owned` deletes it later."""
        try:
            await self._look("run.jobs.delete", self._clients.jobs.delete_job, run_v2.DeleteJobRequest(name=name))
        except (OutcomeUnknownError, NoCapacityError, RejectedError):
            return

    async def _all(self, permission: str, method: Callable[..., Awaitable[Any]], request: Any) -> list[Any]:
        """As `_call`, for all pages of a listing; each page has the whole deadline."""
        with translate(permission, self._parent):
            return [each async for each in await method(request, timeout=self._deadline_s, retry=None)]

    async def _call(self, permission: str, method: Callable[..., Awaitable[Any]], request: Any) -> Any:
        with translate(permission, self._parent):
            return await method(request, timeout=self._deadline_s, retry=None)

    async def _look(self, permission: str, method: Callable[..., Awaitable[Any]], request: Any) -> Any:
        """As `_call`, but None if the resource does not exist or is over."""
        try:
            return await self._call(permission, method, request)
        except InactiveError:
            return None

    @property
    def _clients(self) -> Clients:
        """Clients of the running event loop: a gRPC channel belongs to one loop."""
        loop = asyncio.get_running_loop()
        if self._opened is None or self._opened[0] is not loop:
            self._opened = (loop, open_clients(self._settings.emulator))
        return self._opened[1]

    def _handle(self, job_name: str) -> Handle:
        return Handle(platform=self.name, order=job_name.rpartition("/")[2], id=job_name)
