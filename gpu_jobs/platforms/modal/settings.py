"""Settings of the platform Modal, read by the orchestrator and by `fanfold deploy modal`."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class ModalSettings(BaseSettings):
    """Each field is read from the variable `FANFOLD_MODAL_` + its name in capitals; lists and dictionaries are JSON."""

    model_config = SettingsConfigDict(env_prefix="FANFOLD_MODAL_", frozen=True)

    app: str = "fanfold"
    """Name of the Modal app that GPU jobs run in."""
    gpus: tuple[str, ...] = ("L4",)
    """GPU types to offer: "L4", four in one container "A100-80GB:4", or fallbacks in order "H100,A100-80GB"."""
    packages: tuple[str, ...] = ()
    """Packages that pip installs into the image besides those of Fanfold."""
    sources: tuple[str, ...] = ()
    """Names of your own Python packages, importable here, whose source code containers get: your workload."""
    env: dict[str, str] = {}
    """Environment variables of the image; never put secrets here."""
    secrets: tuple[str, ...] = ()
    """Names of Modal secrets, whose keys become environment variables; `SERVICE_ACCOUNT_JSON` opens the bucket."""
    weights_volume: str = ""
    """Name of a Modal volume with model weights, mounted at `/weights`; empty: nothing is mounted."""
    region: str = ""
    """Region in which containers run; empty: any, which costs less per hour."""
    max_containers: int = 10
    """How many containers of each entry of `gpus` may run at once; it limits the dollars per hour. Modal's Starter plan
    allows 10 GPUs at once."""
    scaledown_s: int = 60
    """Seconds that an idle container waits for the next GPU job; they are billed."""
    deploys: bool = True
    """Deploy the app at first use if it is missing or was made from other code; if false, refuse to start instead."""
    emulator: str = ""
    """Address of an emulator to use instead of Modal, `http://127.0.0.1:PORT`; MODAL_SERVER_URL must be the same."""
