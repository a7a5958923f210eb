"""What the environment decides about RunPod."""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class RunPodSettings(BaseSettings):
    """Environment variables, each `FANFOLD_RUNPOD_` + the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="FANFOLD_RUNPOD_", frozen=True, populate_by_name=True)

    api_key: SecretStr = Field(default=SecretStr(""), validation_alias="RUNPOD_API_KEY")
    """From the variable RUNPOD_API_KEY, as RunPod's own tools; read by the orchestrator."""
    image: str = ""
    """Container image with Fanfold, the workload and its packages."""
    modes: tuple[Literal["secure", "community", "serverless"], ...] = ("secure",)
    """What may be used: pods in RunPod's data centres or on machines of others, or serverless endpoints. JSON."""
    gpu: str = ""
    """RunPod's id of a GPU type, such as `NVIDIA L4`; empty: any that is offered."""
    gpus_per_worker: int = Field(default=1, ge=1, le=8)
    """GPUs of one GPU worker; more than one for a model that needs them."""
    gpus_per_pod: int = Field(default=8, ge=1, le=8)
    """A GPU job of more GPUs is spread over several pods."""
    data_centers: tuple[str, ...] = ()
    """RunPod's ids of data centres; empty: any. JSON."""
    volume: str = ""
    """Id of a network volume, for model weights, mounted at `/runpod-volume`; it lies in one data centre."""
    registry: str = ""
    """Id of the registry credential in RunPod that pulls the image; empty: the image is public."""
    disk_gb: int = Field(default=50, ge=20)
    """Disk of a pod: the image, and what GPU workers download."""
    secrets: dict[str, str] = {}
    """Environment variable of GPU workers -> name of a RunPod secret. JSON."""
    env: dict[str, str] = {}
    boot_minutes: float = 20.0
    """A pod that does not run by then (an image that never pulls, a bad host) is ended."""
    emulator: str = ""
    """`http://127.0.0.1:PORT` of the emulator, in place of RunPod. Loopback only: there is no TLS."""
