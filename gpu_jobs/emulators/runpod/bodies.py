"""Bodies of requests, as in the OpenAPI document of REST v2; unknown fields are refused."""

import json
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gpu_jobs.emulators.runpod.errors import ApiError

MAX_ENV = 50
MAX_BYTES = 102_400


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Gpu(_Body):
    id: str
    count: int = Field(default=1, ge=1)
    allowed_cuda_versions: list[str] = Field(default_factory=list, alias="allowedCudaVersions")
    min_cuda_version: str = Field(default="", alias="minCudaVersion")
    min_ram_per_gpu: int = Field(default=8, alias="minRamPerGpu")
    min_vcpu_count_per_gpu: int = Field(default=2, alias="minVcpuCountPerGpu")


class NetworkMount(_Body):
    volume_id: str = Field(alias="volumeId")
    path: str


class PersistentMount(_Body):
    size: int = Field(ge=1)
    path: str = "/workspace"


class Mounts(_Body):
    network: Annotated[list[NetworkMount], Field(max_length=1)] = []
    persistent: PersistentMount | None = None


class CreatePod(_Body):
    name: str = Field(min_length=1)
    image: str
    gpu: Gpu
    cloud: Literal["SECURE", "COMMUNITY"] = "SECURE"
    data_center_ids: list[str] = Field(default_factory=list, alias="dataCenterIds")
    disk: int = Field(default=20, ge=1)
    env: Annotated[dict[str, str], Field(max_length=MAX_ENV)] = {}
    ports: list[str] = []
    mounts: Mounts = Mounts()
    args: str = ""
    entrypoint: list[str] = []
    cmd: list[str] = []
    registry: str | None = None
    start_ssh: bool = Field(default=False, alias="startSsh")
    start_jupyter: bool = Field(default=False, alias="startJupyter")
    global_networking: bool = Field(default=False, alias="globalNetworking")

    @model_validator(mode="after")
    def _one_form_of_command(self) -> "CreatePod":
        if self.args and (self.cmd or self.entrypoint):
            raise ValueError("args and cmd/entrypoint exclude each other")
        return self


class PodAction(_Body):
    action: Literal["start", "stop", "restart", "terminate"]


class EndpointGpu(_Body):
    pools: Annotated[list[str], Field(min_length=1)]
    count: int = Field(default=1, ge=1)
    excluded_types: list[str] = Field(default_factory=list, alias="excludedTypes")
    allowed_cuda_versions: list[str] = Field(default_factory=list, alias="allowedCudaVersions")
    min_cuda_version: str = Field(default="", alias="minCudaVersion")


class Workers(_Body):
    min: int = Field(default=0, ge=0)
    max: int = Field(default=3, ge=0)
    idle_timeout: int | None = Field(default=None, ge=1, le=3600, alias="idleTimeout")


class QueueDelay(_Body):
    type: Literal["QUEUE_DELAY"]
    queue_delay: float = Field(ge=0.5, alias="queueDelay")


class RequestCount(_Body):
    type: Literal["REQUEST_COUNT"]
    request_count: int = Field(ge=1, alias="requestCount")


class CreateEndpoint(_Body):
    name: str = Field(min_length=1)
    type: Literal["QUEUE"]
    image: str
    gpu: EndpointGpu
    scaling: Annotated[QueueDelay | RequestCount, Field(discriminator="type")]
    workers: Workers = Workers()
    timeout: int = 300_000
    disk: int = Field(default=20, ge=1)
    env: Annotated[dict[str, str], Field(max_length=MAX_ENV)] = {}
    ports: list[str] = []
    args: str = ""
    registry: str | None = None
    data_center_ids: list[str] = Field(default_factory=list, alias="dataCenterIds")
    network_volumes: list[str] = Field(default_factory=list, alias="networkVolumes")
    flashboot: Literal["OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"] = "OFF"

    @model_validator(mode="after")
    def _idle_timeout_needs_queue_delay(self) -> "CreateEndpoint":
        if self.workers.idle_timeout is not None and self.scaling.type == "REQUEST_COUNT":
            raise ValueError("workers.idleTimeout does not apply to queue endpoints that scale on requestCount")
        return self


class Policy(_Body):
    """Time limits of a job, in milliseconds."""

    execution_timeout: int = Field(default=600_000, ge=5_000, le=604_800_000, alias="executionTimeout")
    ttl: int = Field(default=86_400_000, ge=10_000, le=604_800_000)
    low_priority: bool = Field(default=False, alias="lowPriority")


class RunJob(_Body):
    input: dict[str, Any]
    policy: Policy = Policy()
    webhook: str = ""


_Model = TypeVar("_Model", bound=BaseModel)


async def parsed(request: web.Request, model: type[_Model]) -> _Model:
    """Parse the body of a request; raise 413 or 422 if RunPod would refuse it."""
    raw = await request.read()
    if len(raw) > MAX_BYTES:
        raise ApiError(413, "Request body too large")
    try:
        return model.model_validate(json.loads(raw))
    except ValidationError as error:
        errors = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise ApiError(422, "Validation failed", errors) from error
    except ValueError as error:
        raise ApiError(422, f"Not JSON: {error}") from error
