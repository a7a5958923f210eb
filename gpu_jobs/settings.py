"""Settings of a process, from environment variables. A campaign's own settings are in its policy, never here."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings that all share, each read from `FANFOLD_` + the field's name in capitals. Platforms have their own."""

    model_config = SettingsConfigDict(env_prefix="FANFOLD_", frozen=True)

    store_fsync: bool = False
    """Make each write to a local store survive a power cut, not only killed processes; about 10 times slower."""
    rehearsal: str = ""
    """Names of the emulators of a running rehearsal, separated by commas, as `fanfold rehearse` sets them. Nothing but
    these emulators and the platform `local` may then be used; empty: no rehearsal."""
    offers: str = ""
    """Path of a TOML file like `gpu_jobs/jobs/offers.toml`, whose offers and prices replace those."""
    log_dir: str = ""
    """Folder for the logs of GPU workers of the platform `local`; empty: a folder in the temporary one."""
    model_cache: str = "~/.cache/fanfold"
    """Folder for downloaded inputs and prepared model weights."""
    model_dirs: str = ""
    """Folders that hold models as `<model id>/`, separated as in PATH: of the image, a volume, a mounted bucket."""
    gang_size: int = 0
    """How many processes train one model together; 0: one per GPU of the container, or one on a CPU."""
    trusted_models: str = ""
    """Names of models whose own Python code may run here, separated by commas; empty: none."""
