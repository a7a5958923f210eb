"""The state of the emulated service: apps, functions, calls, and the objects that functions depend on."""

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modal_proto import api_pb2

from gpu_jobs.emulators.modal.rpc import absent

if TYPE_CHECKING:
    from gpu_jobs.emulators.modal.container import Container
    from gpu_jobs.emulators.modal.pool import Pool


def new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(11)}"


class News:
    """Lets any number of coroutines wait until something has changed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Return at the next change, or after the timeout."""
        try:
            await asyncio.wait_for(self._event.wait(), max(0.0, timeout_s))
        except TimeoutError:
            return


@dataclass(eq=False, slots=True, kw_only=True)
class App:
    id: str
    name: str
    tags: dict[str, str] = field(default_factory=dict)
    function_ids: dict[str, str] = field(default_factory=dict)
    """Ids of functions by tag, as last published."""
    is_deployed: bool = False


@dataclass(eq=False, slots=True, kw_only=True)
class FunctionRecord:
    """A function of an app, or a variant of it with other options, which has containers of its own."""

    id: str
    app_id: str
    definition: Any
    """An `api_pb2.Function`; for a function with a list of GPUs, the one of the first GPU."""
    function_data: Any
    handle_metadata: Any
    base_id: str = ""
    options: Any = None
    pool: "Pool | None" = None


@dataclass(eq=False, slots=True, kw_only=True)
class Input:
    """One input of a call: it is queued, or held by a container, or has a result."""

    id: str
    call: "Call"
    index: int
    payload: Any
    num_retries: int = 0
    """Number of retries used, after exceptions and timeouts."""
    num_losses: int = 0
    """Number of containers that died by themselves while they held this input."""
    is_cancelled: bool = False
    is_late: bool = False
    container: "Container | None" = None
    timer: asyncio.TimerHandle | None = None
    result: Any = None
    """An `api_pb2.FunctionGetOutputsItem`."""


@dataclass(eq=False, slots=True, kw_only=True)
class Call:
    id: str
    function: FunctionRecord
    invocation: int
    inputs: list[Input] = field(default_factory=list)
    is_expired: bool = False
    """Whether the results have been dropped, as the service does after a week."""
    news: News = field(default_factory=News)

    @property
    def num_unfinished(self) -> int:
        return 0 if self.is_expired else sum(each.result is None for each in self.inputs)


@dataclass(eq=False, slots=True)
class Records:
    """All objects, by id."""

    apps: dict[str, App] = field(default_factory=dict)
    functions: dict[str, FunctionRecord] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)
    mounts: dict[str, dict[str, str]] = field(default_factory=dict)
    """For each mount, the SHA-256 of each file by its path in the container."""
    files: dict[str, bytes] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    named_secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    """Secrets by name, as a person would create them on the web site."""
    blobs: dict[str, bytes] = field(default_factory=dict)

    def deployed(self, name: str) -> App:
        for app in self.apps.values():
            if app.is_deployed and app.name == name:
                return app
        raise absent(f"App '{name}'")

    def function(self, function_id: str) -> FunctionRecord:
        if function_id not in self.functions:
            raise absent(f"Function '{function_id}'")
        return self.functions[function_id]

    def call(self, call_id: str) -> Call:
        if call_id not in self.calls:
            raise absent(f"Function call '{call_id}'")
        return self.calls[call_id]

    def environment_of(self, image_id: str) -> list[str]:
        """Return the `ENV` lines of an image and of its base images, those of the lowest base first."""
        if image_id not in self.images:
            return []
        image: api_pb2.Image = self.images[image_id]
        lines = [line for base in image.base_images for line in self.environment_of(base.image_id)]
        return lines + [line for line in image.dockerfile_commands if line.startswith("ENV ")]
