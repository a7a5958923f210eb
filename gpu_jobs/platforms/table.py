"""The table of platforms: one row per platform, from which forms, commands, checks and tests derive all they need.

A package of somebody else adds a platform with an entry point of the group `fanfold.platforms` that names its row;
every process in whose environment that package is installed then knows the platform: docs/adding-a-platform.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

from gpu_jobs.errors import RefusedError

ENTRY_POINTS = "fanfold.platforms"
LOCAL = "local"
"""The platform that costs nothing: this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformRow:
    """What Fanfold knows about a platform before it imports any code of it.

    A place is "module:attribute", imported when it is first needed; "" means that the platform has no such thing.
    """

    name: str
    """The name in policies, offers and commands; lower case, with `_` between words."""
    title: str
    """The name in forms and help texts."""
    adapter: str
    """Place of a class that implements `Platform` and can be made without arguments."""
    settings: str = ""
    """Place of the settings class, whose environment variables begin with `FANFOLD_` and the platform's name."""
    doctor: str = ""
    """Place of a function that takes the store root and yields what it has found, as `Check`s."""
    deploy: str = ""
    """Place of a function without arguments that puts Fanfold's code into the platform and returns a message."""
    emulator: str = ""
    """Place of a context manager that takes a folder and gives a `Rehearsal`."""
    offers: str = ""
    """Place of a sequence of `Offer`s, for a platform whose offers are not in `gpu_jobs/jobs/offers.toml`."""
    package: str = ""
    """Distribution package of the vendor's client; the emulator can be used where it is installed."""
    install: str = ""
    """What pip installs to get that package, such as `fanfold[modal]`."""
    keys: tuple[str, ...] = ()
    """Environment variables with keys to the real platform, which a rehearsal takes away."""
    needs_bucket: bool = True
    """GPU workers cannot reach folders of the machine that starts them, so store and dataset must be remote."""
    max_flow_runs: int = 8
    """How many flow runs may use the platform at once, unless `flows.setup` is given another limit."""


BUILT_IN = (
    PlatformRow(
        name=LOCAL,
        title="this machine",
        adapter="gpu_jobs.platforms.local:LocalPlatform",
        needs_bucket=False,
        max_flow_runs=2,
    ),
    PlatformRow(
        name="cloud_run",
        title="Google Cloud Run",
        adapter="gpu_jobs.platforms.cloud_run.adapter:CloudRunPlatform",
        settings="gpu_jobs.platforms.cloud_run.settings:CloudRunSettings",
        doctor="gpu_jobs.platforms.cloud_run.doctor:checks",
        emulator="gpu_jobs.emulators.cloud_run:rehearsal",
        keys=("GOOGLE_APPLICATION_CREDENTIALS", "SERVICE_ACCOUNT_JSON"),
        package="google-cloud-run",
        install="fanfold[cloud-run]",
    ),
    PlatformRow(
        name="modal",
        title="Modal",
        adapter="gpu_jobs.platforms.modal.adapter:ModalPlatform",
        settings="gpu_jobs.platforms.modal.settings:ModalSettings",
        doctor="gpu_jobs.platforms.modal.doctor:checks",
        deploy="gpu_jobs.platforms.modal.deploy:deploy",
        emulator="gpu_jobs.emulators.modal:rehearsal",
        keys=("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"),
        package="modal",
        install="fanfold[modal]",
    ),
    PlatformRow(
        name="runpod",
        title="RunPod",
        adapter="gpu_jobs.platforms.runpod.adapter:RunPodPlatform",
        settings="gpu_jobs.platforms.runpod.settings:RunPodSettings",
        doctor="gpu_jobs.platforms.runpod.doctor:checks",
        emulator="gpu_jobs.emulators.runpod:rehearsal",
        keys=("RUNPOD_API_KEY", "RUNPOD_AI_API_KEY"),
        package="runpod",
        install="fanfold[runpod]",
    ),
)


@cache
def known_platforms() -> Mapping[str, PlatformRow]:
    """All rows by name: Fanfold's own, then those of installed packages.

    Raises:
        RefusedError: two rows have the same name.
    """
    rows: dict[str, PlatformRow] = {}
    for row in (*BUILT_IN, *(entry.load() for entry in entry_points(group=ENTRY_POINTS))):
        if row.name in rows:
            raise RefusedError("platforms", f"two rows are named '{row.name}'; rename the one of your own package")
        rows[row.name] = row
    return rows


def row_of(name: str) -> PlatformRow:
    """The row of one platform.

    Raises:
        RefusedError: there is no platform of this name.
    """
    known = known_platforms()
    if name not in known:
        raise RefusedError("platforms", f"'{name}' is not a platform; use one of {', '.join(known)}")
    return known[name]
