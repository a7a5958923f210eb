"""An emulated container, which is a real process of `python -m modal._container_entrypoint`."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu_jobs.emulators.modal.bill import Bill, BillLine
from gpu_jobs.emulators.modal.pool import Pool
from gpu_jobs.emulators.modal.records import Input, News

_HEARTBEAT_S = 10.0
# A child of each container waits until the emulator's pipe closes, so that the container dies with the emulator.
_DIE_WITH_PARENT = 'exec 3<&0; { read -r _ <&3; kill -9 -- -$$; } & exec "$@" </dev/null 3<&-'


class Container:
    """One container, from its start until all its processes are gone."""

    def __init__(self, pool: Pool, *, folder: Path, environ: Mapping[str, str], bill: Bill, grace_s: float) -> None:
        self.pool = pool
        self.id = folder.name
        self.held: dict[str, Input] = {}
        self.is_retired = False
        """Whether the container takes no more inputs."""
        self.is_preempted = False
        self.is_closing = False
        self.task_result: Any = None
        self._folder = folder
        self._environ = environ
        self._grace_s = grace_s
        self._process: asyncio.subprocess.Process | None = None
        self._cancelled: list[str] = []
        self._news = News()
        self._busy_since = 0.0
        definition = pool.definition()
        gpu = definition.resources.gpu_config
        self.line = BillLine(
            task_id=self.id,
            function=definition.function_name,
            gpu=gpu.gpu_type,
            num_gpus=gpu.count,
            cores=definition.resources.milli_cpu / 1000 or 0.125,
            memory_gib=definition.resources.memory_mb / 1024 or 0.125,
            max_cores=definition.resources.milli_cpu_max / 1000,
            max_memory_gib=definition.resources.memory_mb_max / 1024,
        )
        bill.lines.append(self.line)

    async def live(self, socket_path: str) -> None:
        """Run the container's process until it ends; its listener must be serving already."""
        try:
            with (self._folder / "log").open("wb") as log:
                self._process = await asyncio.create_subprocess_exec(
                    "/bin/sh", "-c", _DIE_WITH_PARENT, "container", *_command(),
                    stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                    cwd=self._folder / "root", env={**self._environ, "MODAL_SERVER_URL": f"unix://{socket_path}"},
                )  # fmt: skip
            if self.is_closing:
                self.kill()
            await self._process.wait()
        finally:
            self.kill()
            if self._process is not None:
                await self._process.wait()
            self.line.ended_s = time.monotonic()
            if self.held:
                self.line.worked_s += self.line.ended_s - self._busy_since

    def note_ready(self) -> None:
        """The container asks for work, so its cold start is over."""
        if self.line.ready_s is None:
            self.line.ready_s = time.monotonic()

    def hold(self, one: Input) -> None:
        self.line.num_inputs += 1
        self._busy_since = time.monotonic()
        self.held[one.id] = one
        one.container = self
        one.timer = asyncio.get_running_loop().call_later(self.pool.timeout_s, self._on_timeout, one)

    def release(self, one: Input) -> None:
        if self.held.pop(one.id, None) is not None:
            self.line.worked_s += time.monotonic() - self._busy_since

    def cancel(self, one: Input) -> None:
        """Make the container's next heartbeat raise `InputCancellation` in the user's code."""
        self._cancelled.append(one.id)
        self._news.notify()

    async def cancellations(self) -> list[str]:
        """Return inputs to cancel, each once; wait for some up to the heartbeat interval."""
        if not self._cancelled:
            await self._news.wait(_HEARTBEAT_S)
        told, self._cancelled = self._cancelled, []
        return told

    def preempt(self) -> None:
        """End the container as if the platform took its machine back."""
        self.is_preempted = True
        self.terminate()

    def terminate(self) -> None:
        """Send SIGINT to the first process and, after the grace, SIGKILL to all."""
        self.is_retired = True
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
            asyncio.get_running_loop().call_later(self._grace_s, self.kill)

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _on_timeout(self, one: Input) -> None:
        one.is_late = True
        self.cancel(one)
        one.timer = asyncio.get_running_loop().call_later(self._grace_s, self.terminate)


def _command() -> list[str]:
    reset = ["env", "--default-signal=INT"] if signal.getsignal(signal.SIGINT) == signal.SIG_IGN else []
    return [*reset, sys.executable, "-m", "modal._container_entrypoint"]
