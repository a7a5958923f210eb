"""The supervisor's handle on its compute process."""

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
        """`learned` maps a device to the batch size that other GPU workers found for it."""
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
        """Send a message. Does nothing if the process is dead, which `is_dead` reports."""
        try:
            self.pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return

    def messages(self) -> Iterator[Any]:
        """Yield all messages that are not read yet, also after the death of the process."""
        try:
            while self.pipe.poll():
                yield self.pipe.recv()
        except (EOFError, OSError):
            return  # the pipe is closed, or the process died while it sent a message

    def is_dead(self) -> bool:
        return not self._process.is_alive()

    def kill(self) -> None:
        """Kill the process and all its child processes."""
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

    def exit_report(self) -> str:
        """Describe how the process ended, for people."""
        code = self._process.exitcode
        if code is None:
            return "the compute process is alive"
        if code < 0:
            return f"the compute process was killed by {signal.Signals(-code).name}"
        return f"the compute process exited with code {code}"
