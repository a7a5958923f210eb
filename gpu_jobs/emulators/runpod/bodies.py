"""Bodies of requests, as the OpenAPI document of REST v2 has them; what it does not know is refused."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


def problems(error: Any) -> list[str]:
    """What a pydantic `ValidationError` found, as RunPod tells it."""
    return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
