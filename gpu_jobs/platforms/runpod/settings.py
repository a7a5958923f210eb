"""Settings of the platform RunPod, read by the orchestrator."""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class RunPodSettings(BaseSettings):
    """Each field is read from the variable `FANFOLD_RUNPOD_` + its name in capitals; lists, dictionaries as JSON."""

    model_config = SettingsConfigDict(env_prefix="FANFOLD_RUNPOD_", frozen=True, populate_by_name=True)

    api_key: SecretStr = Field(default=SecretStr(""), validation_alias="RUNPOD_API_KEY")
    """API key, from the variable RUNPOD_API_KEY, which RunPod's own tools read too."""
    image: str = ""
    """Container image with Fanfold and the workload; `{cuda}` in it becomes the build that the GPU type needs:
    `cu126` or `cu130`."""
    min_cuda: str = Field(default="", pattern=r"^(\d+\.\d+)?$")
    """Oldest CUDA version of a host's driver that the image starts with; empty: the one of the build that the GPU type
    needs. On a host with an older driver the container never starts, and is billed."""
    modes: tuple[Literal["secure", "community", "serverless"], ...] = ("secure",)
    """Which offers may be used: pods in RunPod's data centres, pods on machines of others, serverless endpoints."""
    gpu: str = ""
    """RunPod's id of the GPU type to use, such as `NVIDIA L4`; empty: any."""
    gpus_per_worker: int = Field(default=1, ge=1, le=8)
    """How many GPUs one GPU worker has; more than one for models that span several."""
    gpus_per_pod: int = Field(default=8, ge=1, le=8)
    """How many GPUs one pod has at most; a GPU job that needs more gets several pods."""
    data_centers: tuple[str, ...] = ()
    """RunPod's ids of the data centres to use; empty: any."""
    volume: str = ""
    """Id of a network volume with model weights, mounted at `/runpod-volume`; it exists in one data centre only."""
    registry: str = ""
    """Id of the registry credential in RunPod with which the image is pulled; empty: the image is public."""
    disk_gb: int = Field(default=50, ge=20)
    """Gigabytes of a pod's disk, for the image and for what GPU workers download."""
    secrets: dict[str, str] = {}
    """Environment variables of GPU workers, each with the name of the RunPod secret that it gets."""
    env: dict[str, str] = {}
    """Other environment variables of GPU workers; never put secrets here."""
    boot_minutes: float = 20.0
    """Minutes after which a pod that is not running yet is ended: its image cannot be pulled, or its host is bad."""
    emulator: str = ""
    """Address of an emulator to use instead of RunPod, `http://127.0.0.1:PORT`."""
