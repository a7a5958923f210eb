"""The emulator as a server: a thread with an event loop, and the methods that tests use."""

import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from gpu_jobs.emulators.base import HOST, PATIENCE_S, ThreadedServer
from gpu_jobs.emulators.modal.apps import Apps, Parts
from gpu_jobs.emulators.modal.bill import Bill
from gpu_jobs.emulators.modal.blobs import Blobs
from gpu_jobs.emulators.modal.calls import Calls
from gpu_jobs.emulators.modal.container import Container
from gpu_jobs.emulators.modal.container_calls import ContainerCalls
from gpu_jobs.emulators.modal.dicts import Dicts
from gpu_jobs.emulators.modal.pools import Pools
from gpu_jobs.emulators.modal.records import Records
from gpu_jobs.emulators.modal.rpc import Gateway, Listener
from gpu_jobs.emulators.modal.script import Script

GRACE_S = 30.0
MAX_LOSSES = 8
ResultT = TypeVar("ResultT")


class ModalEmulator(ThreadedServer):
    """A context manager: it serves while it is entered; after its end every container is dead.

    Args:
        folder: the files and the log of each container are kept here.
        environ: additional environment of every container, as if it came from the image.
        grace_s: seconds from a cancellation at a timeout to SIGINT, and from SIGINT to SIGKILL.
        max_losses: an input fails after this many containers died by themselves while they held it.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        grace_s: float = GRACE_S,
        max_losses: int = MAX_LOSSES,
    ) -> None:
        super().__init__()
        self.folder = folder or Path(tempfile.mkdtemp(prefix="fanfold-modal-"))
        self.records = Records()
        self.script = Script()
        self._environ, self._grace_s, self._max_losses = dict(environ or {}), grace_s, max_losses
        self.url = ""
        self._token = (f"ak-{secrets.token_hex(8)}", f"as-{secrets.token_hex(8)}")

    @property
    def environ(self) -> dict[str, str]:
        """The environment that makes the real client use this emulator."""
        return {
            "MODAL_SERVER_URL": self.url,
            "MODAL_TOKEN_ID": self._token[0],
            "MODAL_TOKEN_SECRET": self._token[1],
            "MODAL_CONFIG_PATH": str(self.folder / "no-config"),
            "MODAL_DISABLE_API_PROXY": "1",
            "FANFOLD_MODAL_EMULATOR": self.url,
        }

    @property
    def bill(self) -> Bill:
        return self.pools.bill

    @property
    def calls(self) -> list[str]:
        """The names of all RPCs of clients, in order."""
        return self._gateway.calls

    def do(self, act: Callable[[], ResultT]) -> ResultT:
        """Call a function in the emulator's own thread."""

        async def now() -> ResultT:
            return act()

        return self.call(now())

    def container_of(self, call_id: str) -> Container | None:
        """Return the container that holds the input of a call."""
        return self.do(lambda: next((each.container for each in self.records.call(call_id).inputs), None))

    def containers(self) -> list[Container]:
        """Return all running containers."""
        return self.do(self.pools.containers)

    def log_of(self, container: Container) -> str:
        return (self.folder / container.id / "log").read_text()

    def preempt(self, container: Container) -> None:
        """Take its machine back: SIGINT, SIGKILL after the grace. Its inputs start again in another container."""
        self.do(container.preempt)

    def kill(self, container: Container) -> None:
        """Kill the container at once, as if it died by itself."""
        self.do(container.kill)

    def expire(self, call_id: str) -> None:
        """Drop the results of a call, as the service does after a week."""
        self.records.call(call_id).is_expired = True

    def wait(self, what: Callable[[], object]) -> None:
        """Wait until `what` returns something true.

        Raises:
            TimeoutError: this took longer than `PATIENCE_S`.
        """
        give_up_at = time.monotonic() + PATIENCE_S
        while not what():
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"the condition did not become true within {PATIENCE_S:g} s")
            time.sleep(0.02)

    def unfinished(self) -> list[str]:
        """Return the ids of the calls that have no result yet."""
        return self.do(lambda: [call_id for call_id, call in self.records.calls.items() if call.num_unfinished])

    def cancel_all(self) -> None:
        """Cancel all calls, as a person could by hand; running functions get the chance to settle."""

        def now() -> None:
            for call in self.records.calls.values():
                for one in call.inputs:
                    self.pools.of(call.function).cancel(one, must_terminate=False)

        self.do(now)

    async def _serve(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pools = Pools(
            self.records,
            folder=self.folder,
            environ=self._environ,
            grace_s=self._grace_s,
            max_losses=self._max_losses,
        )
        blobs = Blobs(self.records)
        apps = Apps(self.records, self.pools.redeployed, self.pools.stopped)
        services = [
            apps, Parts(self.records), Calls(self.records, self.pools), Dicts(), blobs, ContainerCalls()
        ]  # fmt: skip
        self._gateway = self.pools.gateway = Gateway(services, self.script, self._token)
        await blobs.start(HOST)
        server = Listener(self._gateway.facing(None))
        await server.start(HOST, 0)
        self.url = f"http://{HOST}:{server.port}"
        await self._until_over()
        await self.pools.close()
        await server.stop()
        await blobs.stop()
