"""What the environment of one process decides. What a campaign decides is in its policy, never here."""

from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Environment variables, each `FANFOLD_` + the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="FANFOLD_", frozen=True, populate_by_name=True)

    store_fsync: bool = False
    """Make every write to a local store survive a power cut, not only the death of processes; about 10x slower."""
    log_dir: str = ""
    """Where the platform `local` keeps its GPU workers' logs; empty: a folder of this user under the temporary one."""
    model_cache: str = "~/.cache/fanfold"
    """Folder for downloaded inputs and prepared model weights."""

    runpod_api_key: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("runpod_api_key", "RUNPOD_API_KEY")
    )
    """From the variable RUNPOD_API_KEY, as RunPod's own tools; read by the orchestrator."""
    runpod_image: str = ""
    """Container image with Fanfold, the workload and its packages."""
    runpod_mode: Literal["pods", "serverless"] = "pods"
    """What GPU jobs are started as: pods with up to `runpod_gpus_per_pod` GPUs, or a serverless endpoint each."""
    runpod_gpu: str = ""
    """RunPod's id of a GPU type, such as `NVIDIA L4`; empty: any that is offered."""
    runpod_gpus_per_pod: int = Field(default=8, ge=1, le=8)
    """A GPU job of more GPUs is spread over several pods."""
    runpod_data_centers: tuple[str, ...] = ()
    """RunPod's ids of data centres; empty: any. JSON."""
    runpod_volume: str = ""
    """Id of a network volume, for model weights, mounted at `/runpod-volume`; it lies in one data centre."""
    runpod_registry: str = ""
    """Id of the registry credential in RunPod that pulls the image; empty: the image is public."""
    runpod_disk_gb: int = Field(default=50, ge=20)
    """Disk of a pod: the image, and what GPU workers download."""
    runpod_secrets: dict[str, str] = {}
    """Environment variable of GPU workers -> name of a RunPod secret. JSON."""
    runpod_env: dict[str, str] = {}
    """Other environment variables of GPU workers; never secrets. JSON."""
    runpod_boot_minutes: float = 20.0
    """A pod that does not run by then (an image that never pulls, a bad host) is ended."""
    runpod_emulator: str = ""
    """`http://127.0.0.1:PORT` of the emulator, in place of RunPod. Loopback only: there is no TLS."""
