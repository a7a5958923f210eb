"""What the environment decides about Modal."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class ModalSettings(BaseSettings):
    """Environment variables, each `FANFOLD_MODAL_` + the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="FANFOLD_MODAL_", frozen=True)

    app: str = "fanfold"
    """Name of the Modal app that GPU jobs run in; these settings are read by the orchestrator and by `deploy`."""
    gpus: tuple[str, ...] = ("L4",)
    """GPUs to offer, as a JSON list: "L4", "A100-80GB:4", or fallbacks in order, "H100,A100-80GB"."""
    packages: tuple[str, ...] = ()
    """What pip installs into the image besides Fanfold's own packages. JSON."""
    sources: tuple[str, ...] = ()
    """Python packages of yours, importable here, that containers get as source: your workload. JSON."""
    env: dict[str, str] = {}
    """Environment variables of the image; never secrets. JSON."""
    secrets: tuple[str, ...] = ()
    """Names of Modal secrets whose keys become environment variables; `SERVICE_ACCOUNT_JSON` opens the bucket. JSON."""
    weights_volume: str = ""
    """Modal volume with model weights, mounted at `/weights`; empty: none."""
    region: str = ""
    """Empty: anywhere; a region costs more per hour."""
    max_containers: int = 20
    """Of each GPU choice at once: the limit of what can be spent per hour."""
    scaledown_s: int = 60
    """How long a container waits, paid for, for the next GPU job."""
    deploys: bool = True
    """Deploy at first use what is not deployed, or was from other code; off: say so and start nothing."""
    emulator: str = ""
    """`http://127.0.0.1:PORT` of the emulator, which MODAL_SERVER_URL must name too. Loopback only."""
