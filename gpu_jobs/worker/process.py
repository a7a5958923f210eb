"""The compute process as its supervisor sees it."""

import multiprocessing
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import psutil

from gpu_jobs.ledger.records import Plan
from gpu_jobs.worker import compute

_SPAWN = multiprocessing.get_context("spawn")


class ComputeProcess:
    """One started compute process and its pipe."""

    def __init__(self, campaign_uri: str, plan: Plan, device: str, learned: Mapping[str, int]) -> None:
        """`learned`: batch size that others have found out, by device."""
        self.pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=compute.run, args=(theirs, campaign_uri, plan, device, dict(learned)), name="compute"
        )
        self._process.start()
        theirs.close()

    @property
    def waitables(self) -> list[Connection | int]:
        return [self.pipe, self._process.sentinel]

    def send(self, message: Any) -> None:
        """Send, unless the process is dead; its death is found by `is_dead`."""
        try:
            self.pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return

    def messages(self) -> Iterator[Any]:
        """Everything it has said and we have not heard, also after its death."""
        try:
            while self.pipe.poll():
                yield self.pipe.recv()
        except (EOFError, OSError):
            return  # closed, or it died in the middle of a message

    def is_dead(self) -> bool:
        return not self._process.is_alive()

    def kill(self) -> None:
        """With everything that it has started."""
        children = self._children()
        self._process.kill()
        self._process.join()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.pipe.close()

    def _children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def obituary(self) -> str:
        """How it died, in words."""
        code = self._process.exitcode
        if code is None:
            return "compute process is alive"
        return f"compute process died of {signal.Signals(-code).name}" if code < 0 else f"compute process exited {code}"
