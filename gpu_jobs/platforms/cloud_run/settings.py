"""What the environment decides about Cloud Run."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class CloudRunSettings(BaseSettings):
    """Environment variables, each `FANFOLD_CLOUD_RUN_` + the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="FANFOLD_CLOUD_RUN_", frozen=True)

    project: str = ""
    """Google Cloud project in which GPU jobs run on Cloud Run; these settings are read by the orchestrator."""
    region: str = "europe-west4"
    """Where GPU jobs run; best the region of the bucket."""
    gpu: str = ""
    """`nvidia-l4` or `nvidia-rtx-pro-6000`; empty: whichever is cheaper in the region."""
    image: str = ""
    """Image with Fanfold, the workload and its packages, as `REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME`."""
    service_account: str = ""
    """E-mail address whose permissions GPU workers have; empty: the project's default one, which may do too much."""
    secrets: dict[str, str] = {}
    """Environment variable of GPU workers -> name of a Secret Manager secret, `NAME` or `NAME:VERSION`. JSON."""
    env: dict[str, str] = {}
    """Other environment variables of GPU workers; never secrets. JSON."""
    weights_bucket: str = ""
    """Bucket with model weights, mounted read-only at `/weights`; empty: none."""
    emulator: str = ""
    """`127.0.0.1:PORT` of the emulator, over gRPC, in place of the service. Loopback only: no credentials, no TLS."""
