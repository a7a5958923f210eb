"""An emulated container: a real process, in a PID namespace of its own where the system allows it."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@cache
def has_namespaces() -> bool:
    """Whether PID namespaces can be created here, as root usually can; without them a process group is used."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*_NAMESPACE, "true"], check=False, capture_output=True).returncode == 0


class Container:
    """One run of a command. As with Docker, process 1 ignores SIGTERM unless it has a handler."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._argv = argv
        self._env = env
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._is_killed = False

    async def run(self) -> int:
        """Run the command until it ends; if the emulator dies, everything in the container dies too."""
        bound = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
        argv = [*bound, *(_NAMESPACE if has_namespaces() else ()), *self._argv]
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(self._env), start_new_session=True
            )
        if self._is_killed:
            self.kill()
        try:
            return await self._process.wait()
        finally:
            self.kill()
            await self._process.wait()

    def terminate(self) -> None:
        """Send SIGTERM to process 1."""
        if self._process is not None:
            with suppress(psutil.NoSuchProcess):
                first = psutil.Process(self._process.pid)
                for process in first.children() if has_namespaces() else [first]:
                    process.terminate()

    def kill(self) -> None:
        """Kill everything in the container: the namespace dies with its process 1, which dies with its parent."""
        self._is_killed = True
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
