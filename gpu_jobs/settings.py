"""What the environment of one process decides. What a campaign decides is in its policy, never here."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Environment variables, each `FANFOLD_` + the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="FANFOLD_", frozen=True)

    store_fsync: bool = False
    """Make every write to a local store survive a power cut, not only the death of processes; about 10x slower."""
    offers: str = ""
    """A TOML file like `gpu_jobs/jobs/offers.toml`, with your own prices and offers in place of ours."""
    log_dir: str = ""
    """Where the platform `local` keeps its GPU workers' logs; empty: a folder of this user under the temporary one."""
    model_cache: str = "~/.cache/fanfold"
    """Folder for downloaded inputs and prepared model weights."""

    model_dirs: str = ""
    """Folders that hold models as `<model id>/`, joined as in PATH: in the image, on a volume, a mounted bucket."""
    gang_size: int = 0
    """Processes that train one model together; 0: one per GPU of the container, or a single one on a CPU."""
    trusted_models: str = ""
    """Models whose own Python code may run here, as a campaign names them, joined by commas; empty: none."""
