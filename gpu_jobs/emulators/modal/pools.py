"""All pools, and the files and environment of their containers."""

import asyncio
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modal_proto import api_pb2

from gpu_jobs.emulators.modal.bill import Bill
from gpu_jobs.emulators.modal.container import Container
from gpu_jobs.emulators.modal.pool import Pool
from gpu_jobs.emulators.modal.records import App, FunctionRecord, Records, new_id
from gpu_jobs.emulators.modal.rpc import Gateway, Listener, made

_INHERITED = (
    "PATH", "HOME", "LANG", "STORAGE_EMULATOR_HOST", "FANFOLD_REHEARSAL",
    "OMP_WAIT_POLICY", "HF_HUB_OFFLINE", "FANFOLD_MODEL_CACHE"
)  # fmt: skip
"""Variables that containers inherit from the emulator's own environment."""


class Pools:
    """Creates each pool when it is first asked for.

    Every container has a listener of its own, because its calls do not say which container makes them.
    """

    def __init__(
        self, records: Records, *, folder: Path, environ: Mapping[str, str], grace_s: float, max_losses: int
    ) -> None:
        self._records = records
        self._folder = folder
        self._environ = environ
        self._grace_s = grace_s
        self._max_losses = max_losses
        self._sockets = Path(tempfile.mkdtemp(prefix="modal-"))  # paths of sockets must be short
        self._lives: set[asyncio.Task[None]] = set()
        self.bill = Bill()
        self.gateway: Gateway | None = None

    def of(self, function: FunctionRecord) -> Pool:
        if function.pool is None:
            function.pool = Pool(function, self._start, self._max_losses)
        return function.pool

    def containers(self) -> list[Container]:
        pools = [each.pool for each in self._records.functions.values() if each.pool is not None]
        return [container for pool in pools for container in pool.containers]

    def redeployed(self, app: App) -> None:
        """Containers of the old code finish their inputs and end; variants get the new code."""
        for function in self._functions_of(app):
            if function.base_id:
                function.definition = self._records.functions[function.base_id].definition
            pool = self.of(function)
            pool.is_stopped = False
            for container in pool.containers:
                container.is_retired = True
            pool.news.notify()
            pool.scale()

    def stopped(self, app: App) -> None:
        for function in self._functions_of(app):
            pool = self.of(function)
            pool.is_stopped = True
            for one in [*pool.queue, *(one for each in pool.containers for one in each.held.values())]:
                pool.cancel(one, must_terminate=True)
            for container in pool.containers:
                container.terminate()

    async def close(self) -> None:
        """Kill all containers; return when none is left."""
        for container in self.containers():
            container.is_closing = container.is_retired = True
            container.kill()
        while self._lives:
            await asyncio.gather(*self._lives, return_exceptions=True)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _functions_of(self, app: App) -> list[FunctionRecord]:
        return [each for each in self._records.functions.values() if each.app_id == app.id]

    def _start(self, pool: Pool) -> Container:
        task_id = new_id("ta")
        folder = self._folder / task_id
        (folder / "root").mkdir(parents=True)
        container = Container(
            pool, folder=folder, environ=self._environment(pool, folder), bill=self.bill, grace_s=self._grace_s
        )
        life = asyncio.create_task(self._live(container, folder))
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)
        return container

    async def _live(self, container: Container, folder: Path) -> None:
        assert self.gateway is not None
        socket_path = f"{self._sockets}/{container.id[-8:]}"
        server = Listener(self.gateway.facing(container))
        try:
            self._write_files(container.pool, folder)
            await server.start(path=socket_path)
            await container.live(socket_path)
        finally:
            await server.stop()
            container.line.ended_s = container.line.ended_s or time.monotonic()
            container.pool.lost(container)

    def _environment(self, pool: Pool, folder: Path) -> dict[str, str]:
        definition = pool.definition()
        secrets = [self._records.secrets[each] for each in definition.secret_ids]
        gpu = definition.resources.gpu_config
        return {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            **self._environ,
            **_image_environment(self._records.environment_of(definition.image_id)),
            **{name: value for secret in secrets for name, value in secret.items()},
            "MODAL_CONFIG_PATH": f"{folder}/no-config",
            "MODAL_CONTAINER_ARGUMENTS_PATH": f"{folder}/arguments",
            "MODAL_IS_REMOTE": "1",
            "MODAL_TASK_ID": folder.name,
            "EMULATED_GPU": f"{gpu.gpu_type}:{gpu.count}" if gpu.count else "",
            "PYTHONPATH": f"{folder}/root",
            "PYTHONUNBUFFERED": "1",
        }

    def _write_files(self, pool: Pool, folder: Path) -> None:
        """Write the container's arguments, and its source files under `root` instead of `/root`."""
        function, definition = pool.function, pool.definition()
        arguments = made(
            api_pb2.ContainerArguments,
            task_id=folder.name,
            function_id=function.id,
            app_id=function.app_id,
            function_def=definition,
            app_layout=self._layout(function),
        )
        (folder / "arguments").write_bytes(arguments.SerializeToString())
        for mount_id in definition.mount_ids:
            for name, digest in self._records.mounts.get(mount_id, {}).items():
                path = folder / name.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._records.files[digest])

    def _layout(self, function: FunctionRecord) -> Any:
        """Return the app's functions, and every object that this function depends on."""
        app = self._records.apps[function.app_id]
        ids = [each.object_id for each in function.definition.object_dependencies]
        functions = [self._records.functions[each] for each in {*app.function_ids.values(), function.id}]
        objects = [
            api_pb2.Object(object_id=each.id, function_handle_metadata=each.handle_metadata) for each in functions
        ]
        known = {each.object_id for each in objects}
        objects += [_object(object_id) for object_id in ids if object_id not in known]
        return api_pb2.AppLayout(objects=objects, function_ids=app.function_ids)


def _image_environment(lines: Iterable[str]) -> dict[str, str]:
    pairs = (pair.partition("=") for line in lines for pair in shlex.split(line.removeprefix("ENV ")))
    return {name: value for name, _, value in pairs}


def _object(object_id: str) -> Any:
    one = api_pb2.Object(object_id=object_id)
    if object_id.startswith("mo-"):
        one.mount_handle_metadata.SetInParent()
    elif object_id.startswith("vo-"):
        one.volume_metadata.SetInParent()
    return one
