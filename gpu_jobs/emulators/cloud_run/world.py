"""The emulated service: its resources and its methods. Everything runs in one event loop, so there are no locks."""

import asyncio
import random
import string
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from google.cloud import run_v2
from google.longrunning import operations_pb2

from gpu_jobs.emulators.base import Image
from gpu_jobs.emulators.cloud_run.bill import Bill
from gpu_jobs.emulators.cloud_run.execution import RunningExecution
from gpu_jobs.emulators.cloud_run.operations import done, pending
from gpu_jobs.emulators.cloud_run.rules import MAX_JOBS, ApiError, check_job
from gpu_jobs.emulators.cloud_run.script import Script

_PAGE = 100
_suffix = random.Random(0)  # noqa: S311 - names, no secrets


@dataclass(slots=True, kw_only=True)
class World:
    """All resources, and the settings that tests change."""

    images: dict[str, Image]
    projects: set[str] = field(default_factory=lambda: {"emulated"})
    denied: set[str] = field(default_factory=set)
    """Permissions that the caller lacks, such as `run.jobs.run`."""
    gpu_quota: dict[str, int] = field(default_factory=dict)
    """The most GPUs of each type at once, over all regions. A type without an entry is unlimited; 0 refuses it."""
    start_latency_s: float = 0.0
    stop_grace_s: float = 10.0
    script: Script = field(default_factory=Script)
    bill: Bill = field(default_factory=Bill)
    jobs: dict[str, run_v2.Job] = field(default_factory=dict)
    executions: dict[str, RunningExecution] = field(default_factory=dict)
    deleted: list[RunningExecution] = field(default_factory=list)
    """Executions whose job was deleted, which cancels them."""
    num_started: int = 0
    """Number of executions ever started."""
    operations: dict[str, operations_pb2.Operation] = field(default_factory=dict)
    log_dir: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="fanfold-cloud-run-")))
    gpus_free: dict[str, asyncio.Semaphore] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log_dir.mkdir(parents=True, exist_ok=True)

    def create_job(self, request: run_v2.CreateJobRequest) -> operations_pb2.Operation:
        project, region = request.parent.split("/")[1::2]
        self._authorise(project, "run.jobs.create")
        check_job(request.job_id, region, request.job)
        self._check_quota(request.job)
        name = f"{request.parent}/jobs/{request.job_id}"
        if name in self.jobs:
            raise ApiError(grpc.StatusCode.ALREADY_EXISTS, f"Resource '{request.job_id}' already exists.")
        if len(self.jobs) >= MAX_JOBS:
            raise ApiError(grpc.StatusCode.RESOURCE_EXHAUSTED, f"Quota exceeded: {MAX_JOBS} jobs in this region")
        job = run_v2.Job(request.job)
        if job.template.template.containers[0].image not in self.images:
            raise ApiError(grpc.StatusCode.NOT_FOUND, f"Image '{job.template.template.containers[0].image}' not found.")
        job.name, job.create_time = name, datetime.now(UTC)
        job.template.task_count = job.template.task_count or 1
        if "max_retries" not in job.template.template:
            job.template.template.max_retries = 3
        if not run_v2.TaskTemplate.pb(job.template.template).HasField("timeout"):
            run_v2.TaskTemplate.pb(job.template.template).timeout.seconds = 600
        run_v2.Job.pb(job).latest_created_execution.SetInParent()
        job.terminal_condition = run_v2.Condition(type_="Ready", state=run_v2.Condition.State.CONDITION_SUCCEEDED)
        if not request.validate_only:
            self.jobs[name] = job
        return self._keep(done(name, job))

    def get_job(self, request: run_v2.GetJobRequest) -> run_v2.Job:
        self._authorise(request.name.split("/")[1], "run.jobs.get")
        return self._job(request.name)

    def list_jobs(self, request: run_v2.ListJobsRequest) -> run_v2.ListJobsResponse:
        self._authorise(request.parent.split("/")[1], "run.jobs.list")
        found = [job for name, job in sorted(self.jobs.items()) if name.startswith(f"{request.parent}/jobs/")]
        jobs, token = _page(found, request)
        return run_v2.ListJobsResponse(jobs=jobs, next_page_token=token)

    def delete_job(self, request: run_v2.DeleteJobRequest) -> operations_pb2.Operation:
        self._authorise(request.name.split("/")[1], "run.jobs.delete")
        job = self._job(request.name)
        for running in self._executions_of(request.name):
            running.cancel()
            self.deleted.append(self.executions.pop(running.resource.name))
        del self.jobs[request.name]
        return self._keep(done(request.name, job))

    def run_job(self, request: run_v2.RunJobRequest) -> operations_pb2.Operation:
        self._authorise(request.name.split("/")[1], "run.jobs.run")
        job = self._job(request.name)
        name = f"{job.name}/executions/{job.name.rpartition('/')[2]}-{_letters()}"
        self.num_started += 1
        running = self.executions[name] = RunningExecution(self, name, job, request.overrides)
        job.execution_count += 1
        job.latest_created_execution = running.reference()
        operation = self._keep(pending(name, running.resource))
        running.start(operation)
        return operation

    def get_execution(self, request: run_v2.GetExecutionRequest) -> run_v2.Execution:
        self._authorise(request.name.split("/")[1], "run.executions.get")
        return self._execution(request.name).resource

    def list_executions(self, request: run_v2.ListExecutionsRequest) -> run_v2.ListExecutionsResponse:
        self._authorise(request.parent.split("/")[1], "run.executions.list")
        found, token = _page([each.resource for each in self._executions_of(request.parent)], request)
        return run_v2.ListExecutionsResponse(executions=found, next_page_token=token)

    def cancel_execution(self, request: run_v2.CancelExecutionRequest) -> operations_pb2.Operation:
        self._authorise(request.name.split("/")[1], "run.executions.cancel")
        running = self._execution(request.name)
        if running.is_over:
            raise ApiError(grpc.StatusCode.FAILED_PRECONDITION, "The execution is already completed.")
        running.cancel()
        return self._keep(done(request.name, running.resource))

    def get_task(self, request: run_v2.GetTaskRequest) -> run_v2.Task:
        self._authorise(request.name.split("/")[1], "run.tasks.get")
        for task in self._execution(request.name.partition("/tasks/")[0]).tasks:
            if task.name == request.name:
                return task
        raise _absent(request.name, "TASK")

    def list_tasks(self, request: run_v2.ListTasksRequest) -> run_v2.ListTasksResponse:
        self._authorise(request.parent.split("/")[1], "run.tasks.list")
        tasks, token = _page(self._execution(request.parent).tasks, request)
        return run_v2.ListTasksResponse(tasks=tasks, next_page_token=token)

    def get_operation(self, request: operations_pb2.GetOperationRequest) -> operations_pb2.Operation:
        if request.name not in self.operations:
            raise _absent(request.name, "OPERATION")
        return self.operations[request.name]

    def _keep(self, operation: operations_pb2.Operation) -> operations_pb2.Operation:
        self.operations[operation.name] = operation
        return operation

    def _authorise(self, project: str, permission: str) -> None:
        if project not in self.projects or permission in self.denied:
            text = f"Permission '{permission}' denied on resource 'projects/{project}' (or it may not exist)."
            raise ApiError(grpc.StatusCode.PERMISSION_DENIED, text)

    def _check_quota(self, job: run_v2.Job) -> None:
        gpu = job.template.template.node_selector.accelerator
        if gpu and self.gpu_quota.get(gpu) == 0:
            text = f"You do not have quota for using {gpu} GPUs without zonal redundancy."
            raise ApiError(grpc.StatusCode.FAILED_PRECONDITION, text)
        if gpu in self.gpu_quota and gpu not in self.gpus_free:
            self.gpus_free[gpu] = asyncio.Semaphore(self.gpu_quota[gpu])

    def _job(self, name: str) -> run_v2.Job:
        if name not in self.jobs:
            raise _absent(name, "JOB")
        return self.jobs[name]

    def _execution(self, name: str) -> RunningExecution:
        if name not in self.executions:
            raise _absent(name, "EXECUTION")
        return self.executions[name]

    def _executions_of(self, job: str) -> list[RunningExecution]:
        return [each for name, each in self.executions.items() if name.startswith(f"{job}/executions/")]


def _page(found: Sequence[Any], request: Any) -> tuple[Sequence[Any], str]:
    """Return one page of a listing, and the token of the next page."""
    start, stop = int(request.page_token or 0), int(request.page_token or 0) + (request.page_size or _PAGE)
    return found[start:stop], str(stop) if len(found) > stop else ""


def _letters() -> str:
    return "".join(_suffix.choices(string.ascii_lowercase + string.digits, k=5))


def _absent(name: str, kind: str) -> ApiError:
    parts = name.split("/")
    location = f"in region '{parts[3]}' in project '{parts[1]}'" if len(parts) > 3 else ""  # noqa: PLR2004 - of a full name
    return ApiError(grpc.StatusCode.NOT_FOUND, f"Resource '{parts[-1]}' of kind '{kind}' {location} does not exist.")
