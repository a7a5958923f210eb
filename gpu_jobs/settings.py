"""What the environment of one process decides. What a campaign decides is in its policy, never here."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Environment variables, each `FANFOLD_` + the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="FANFOLD_", frozen=True)

    store_fsync: bool = False
    """Make every write to a local store survive a power cut, not only the death of processes; about 10x slower."""
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
