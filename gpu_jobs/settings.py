"""What the environment of one process decides. What a campaign decides is in its policy, never here."""

from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Environment variables, each `FANFOLD_` + the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="FANFOLD_", frozen=True, populate_by_name=True)

    store_fsync: bool = False
    """Make every write to a local store survive a power cut, not only the death of processes; about 10x slower."""
    offers: str = ""
    """A TOML file like `gpu_jobs/jobs/offers.toml`, with your own prices and offers in place of ours."""
    log_dir: str = ""
    """Where the platform `local` keeps its GPU workers' logs; empty: a folder of this user under the temporary one."""
    model_cache: str = "~/.cache/fanfold"
    """Folder for downloaded inputs and prepared model weights."""

    cloud_run_project: str = ""
    """Google Cloud project in which GPU jobs run on Cloud Run; these settings are read by the orchestrator."""
    cloud_run_region: str = "europe-west4"
    """Where GPU jobs run; best the region of the bucket."""
    cloud_run_gpu: str = ""
    """`nvidia-l4` or `nvidia-rtx-pro-6000`; empty: whichever is cheaper in the region."""
    cloud_run_image: str = ""
    """Image with Fanfold, the workload and its packages, as `REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME`."""
    cloud_run_service_account: str = ""
    """E-mail address whose permissions GPU workers have; empty: the project's default one, which may do too much."""
    cloud_run_secrets: dict[str, str] = {}
    """Environment variable of GPU workers -> name of a Secret Manager secret, `NAME` or `NAME:VERSION`. JSON."""
    cloud_run_env: dict[str, str] = {}
    """Other environment variables of GPU workers; never secrets. JSON."""
    cloud_run_weights_bucket: str = ""
    """Bucket with model weights, mounted read-only at `/weights`; empty: none."""
    cloud_run_emulator: str = ""
    """`127.0.0.1:PORT` of the emulator, over gRPC, in place of the service. Loopback only: no credentials, no TLS."""
    modal_app: str = "fanfold"
    """Name of the Modal app that GPU jobs run in; these settings are read by the orchestrator and by `deploy`."""
    modal_gpus: tuple[str, ...] = ("L4",)
    """GPUs to offer, as a JSON list: "L4", "A100-80GB:4", or fallbacks in order, "H100,A100-80GB"."""
    modal_packages: tuple[str, ...] = ()
    """What pip installs into the image besides Fanfold's own packages. JSON."""
    modal_sources: tuple[str, ...] = ()
    """Python packages of yours, importable here, that containers get as source: your workload. JSON."""
    modal_env: dict[str, str] = {}
    """Environment variables of the image; never secrets. JSON."""
    modal_secrets: tuple[str, ...] = ()
    """Names of Modal secrets whose keys become environment variables; `SERVICE_ACCOUNT_JSON` opens the bucket. JSON."""
    modal_weights_volume: str = ""
    """Modal volume with model weights, mounted at `/weights`; empty: none."""
    modal_region: str = ""
    """Empty: anywhere; a region costs more per hour."""
    modal_max_containers: int = 20
    """Of each GPU choice at once: the limit of what can be spent per hour."""
    modal_scaledown_s: int = 60
    """How long a container waits, paid for, for the next GPU job."""
    modal_deploys: bool = True
    """Deploy at first use what is not deployed, or was from other code; off: say so and start nothing."""
    modal_emulator: str = ""
    """`http://127.0.0.1:PORT` of the emulator, which MODAL_SERVER_URL must name too. Loopback only."""
    runpod_api_key: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("runpod_api_key", "RUNPOD_API_KEY")
    )
    """From the variable RUNPOD_API_KEY, as RunPod's own tools; read by the orchestrator."""
    runpod_image: str = ""
    """Container image with Fanfold, the workload and its packages."""
    runpod_modes: tuple[Literal["secure", "community", "serverless"], ...] = ("secure",)
    """What may be used: pods in RunPod's data centres or on machines of others, or serverless endpoints. JSON."""
    runpod_gpu: str = ""
    """RunPod's id of a GPU type, such as `NVIDIA L4`; empty: any that is offered."""
    runpod_gpus_per_worker: int = Field(default=1, ge=1, le=8)
    """GPUs of one GPU worker; more than one for a model that needs them."""
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
    runpod_boot_minutes: float = 20.0
    """A pod that does not run by then (an image that never pulls, a bad host) is ended."""
    runpod_emulator: str = ""
    """`http://127.0.0.1:PORT` of the emulator, in place of RunPod. Loopback only: there is no TLS."""
    model_dirs: str = ""
    """Folders that hold models as `<model id>/`, joined as in PATH: in the image, on a volume, a mounted bucket."""
    gang_size: int = 0
    """Processes that train one model together; 0: one per GPU of the container, or a single one on a CPU."""
    trusted_models: str = ""
    """Models whose own Python code may run here, as a campaign names them, joined by commas; empty: none."""
