"""The table of methods, which the gRPC and the REST server share."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.cloud import run_v2
from google.longrunning import operations_pb2

from gpu_jobs.emulators.cloud_run.operations import failed
from gpu_jobs.emulators.cloud_run.rules import ApiError
from gpu_jobs.emulators.cloud_run.world import World

_JOB = r"projects/[^/]+/locations/[^/]+/jobs/[^/]+"
_EXECUTION = rf"{_JOB}/executions/[^/]+"
HTTP = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ALREADY_EXISTS,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""Maps HTTP statuses to gRPC codes."""


class ReplyLostError(ApiError):
    """The connection breaks after the call was carried out."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@dataclass(frozen=True, slots=True)
class Call:
    """One method: the function that carries it out, and its form in REST."""

    do: Callable[[World, Any], Any]
    request: Any
    verb: str
    path: str
    """A regular expression with one group, which is named after the field of the request that it fills."""
    body: str = ""
    """The field that the body of a REST request fills; "*" stands for the whole request."""

    def deserialize(self, raw: bytes) -> Any:
        is_plain = self.request is operations_pb2.GetOperationRequest
        return self.request.FromString(raw) if is_plain else self.request.deserialize(raw)

    @staticmethod
    def serialize(message: Any) -> bytes:
        raw = message if isinstance(message, operations_pb2.Operation) else type(message).pb(message)
        return bytes(raw.SerializeToString())


async def answer(world: World, name: str, call: Call, request: Any) -> Any:
    """Carry a call out, or apply a scripted fault."""
    fault = world.script.take(name)
    await asyncio.sleep(fault.latency_s)
    if fault.is_in_operation:
        parent = "/".join((getattr(request, "parent", "") or request.name).split("/")[:4])
        return failed(parent, HTTP[fault.status].value[0], fault.message)
    if fault.status:
        raise ApiError(HTTP[fault.status], fault.message)
    reply = call.do(world, request)
    if fault.reply_is_lost:
        raise ReplyLostError
    return reply


_Operation = operations_pb2.GetOperationRequest
SERVICES: dict[str, dict[str, Call]] = {
    "google.cloud.run.v2.Jobs": {
        "CreateJob": Call(
            World.create_job, run_v2.CreateJobRequest, "POST", r"(?P<parent>projects/[^/]+/locations/[^/]+)/jobs", "job"
        ),
        "GetJob": Call(World.get_job, run_v2.GetJobRequest, "GET", rf"(?P<name>{_JOB})"),
        "ListJobs": Call(
            World.list_jobs, run_v2.ListJobsRequest, "GET", r"(?P<parent>projects/[^/]+/locations/[^/]+)/jobs"
        ),
        "DeleteJob": Call(World.delete_job, run_v2.DeleteJobRequest, "DELETE", rf"(?P<name>{_JOB})"),
        "RunJob": Call(World.run_job, run_v2.RunJobRequest, "POST", rf"(?P<name>{_JOB}):run", "*"),
    },
    "google.cloud.run.v2.Executions": {
        "GetExecution": Call(World.get_execution, run_v2.GetExecutionRequest, "GET", rf"(?P<name>{_EXECUTION})"),
        "ListExecutions": Call(
            World.list_executions, run_v2.ListExecutionsRequest, "GET", rf"(?P<parent>{_JOB})/executions"
        ),
        "CancelExecution": Call(
            World.cancel_execution, run_v2.CancelExecutionRequest, "POST", rf"(?P<name>{_EXECUTION}):cancel", "*"
        ),
    },
    "google.cloud.run.v2.Tasks": {
        "GetTask": Call(World.get_task, run_v2.GetTaskRequest, "GET", rf"(?P<name>{_EXECUTION}/tasks/[^/]+)"),
        "ListTasks": Call(World.list_tasks, run_v2.ListTasksRequest, "GET", rf"(?P<parent>{_EXECUTION})/tasks"),
    },
    "google.longrunning.Operations": {
        "GetOperation": Call(
            World.get_operation,
            _Operation,
            "GET",
            r"(?P<name>projects/[^/]+/locations/[^/]+/operations/[^/]+)",
        ),
    },
}
