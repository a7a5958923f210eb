"""Settings of the platform Cloud Run, read by the orchestrator."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class CloudRunSettings(BaseSettings):
    """Each field is read from the variable `FANFOLD_CLOUD_RUN_` + its name in capitals; dictionaries are JSON."""

    model_config = SettingsConfigDict(env_prefix="FANFOLD_CLOUD_RUN_", frozen=True)

    project: str = ""
    """Id of the Google Cloud project in which GPU jobs run."""
    region: str = "europe-west4"
    """Region in which GPU jobs run; best the region of the bucket."""
    gpu: str = ""
    """GPU type, `nvidia-l4` or `nvidia-rtx-pro-6000`; empty: all that the region has."""
    image: str = ""
    """Container image with Fanfold and the workload, as `REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME:{cuda}`;
    `{cuda}` becomes the build that the GPU type needs."""
    service_account: str = ""
    """E-mail address of the account that GPU workers run as; empty: the project's default, which may do too much."""
    secrets: dict[str, str] = {}
    """Environment variables of GPU workers, each with the Secret Manager secret it gets: `NAME` or `NAME:VERSION`."""
    env: dict[str, str] = {}
    """Other environment variables of GPU workers; never put secrets here."""
    max_hours: float = Field(default=1.0, ge=0.25, le=12.0)
    """Hours after which the service ends a task with a GPU: 1, or up to 12 in projects that have the preview."""
    weights_bucket: str = ""
    """Bucket with model weights, mounted read-only at `/weights`; empty: nothing is mounted."""
    emulator: str = ""
    """Address of an emulator to use instead of the service, `127.0.0.1:PORT`: gRPC without credentials or TLS."""
