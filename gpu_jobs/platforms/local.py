"""GPU workers as processes of this machine: the simplest adapter, and the example for others.

A GPU worker is found by the `--order NAME` in its command line, so a new orchestrator finds what a dead one started.
Each has a session of its own, so that Ctrl-C in a terminal reaches only the orchestrator, and a log file.
"""

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from gpu_jobs.errors import NoCapacityError
from gpu_jobs.jobs.failures import failure_of_exit, gravest
from gpu_jobs.jobs.offers import GRACE_S, LOCAL, Offer
from gpu_jobs.jobs.orders import Handle, Observation, Order, Phase
from gpu_jobs.settings import Settings

STOP_GRACE_S = GRACE_S
"""Seconds between SIGTERM and SIGKILL; a GPU worker settles its chunks within half of them."""
_LOG_TAIL_BYTES = 2000
_ALIVE, _UNKNOWN = 1000, 1001
"""Stand in place of exit codes, which are smaller."""
_MODULE = "gpu_jobs.worker"

_children: dict[str, subprocess.Popen[bytes]] = {}
"""GPU workers that this process started, by identity, so that every adapter here can read their exit codes."""


@atexit.register
def _let_go() -> None:
    """GPU workers live on when this process ends; Python would warn of each that it has not waited for."""
    for child in _children.values():
        if child.poll() is None:
            child.returncode = 0


class LocalPlatform:
    """Implements `Platform`. A handle's id is the pid and start time of each process, joined by commas."""

    name = "local"
    find_lag_s = 1.0  # a process that has just been made may not show its command line yet

    def __init__(self, log_dir: Path | None = None) -> None:
        self._log_dir = log_dir or default_log_dir()
        self._stops: dict[Handle, float] = {}

    def offers(self) -> Sequence[Offer]:
        return [LOCAL]

    async def start(self, order: Order) -> Handle:
        ids: list[str] = []
        try:
            self._log_dir.mkdir(parents=True, exist_ok=True)
            for slot in range(order.num_workers):
                ids.append(self._start_one(order, slot))  # noqa: PERF401 - those started are needed if one fails
        except OSError as error:
            for process in filter(None, map(_alive, ids)):
                _signal(process, signal.SIGKILL)
            raise NoCapacityError(f"this machine starts no more processes: {error}") from error
        return Handle(platform=self.name, order=order.name, id=",".join(ids))

    async def find(self, name: str) -> Handle | None:
        found = [_identity(process) for process, order in _owned() if order == name]
        return Handle(platform=self.name, order=name, id=",".join(found)) if found else None

    async def observe(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        return {handle: self._observe(handle) for handle in handles}

    async def stop(self, handle: Handle) -> None:
        """Send SIGTERM; if asked again after the grace period, kill the processes and all their children."""
        processes = [process for identity in handle.id.split(",") if (process := _alive(identity))]
        if handle not in self._stops:
            self._stops[handle] = time.monotonic()
            for process in processes:
                _signal(process, signal.SIGTERM)
        elif time.monotonic() - self._stops[handle] > STOP_GRACE_S:
            for process in processes:
                for each in (*process.children(recursive=True), process):
                    _signal(each, signal.SIGKILL)

    async def list_owned(self, prefix: str) -> Sequence[Handle]:
        by_order: dict[str, list[str]] = {}
        for process, order in _owned():
            if order.startswith(prefix):
                by_order.setdefault(order, []).append(_identity(process))
        return [Handle(platform=self.name, order=order, id=",".join(ids)) for order, ids in by_order.items()]

    def log_path(self, order: str, slot: int) -> Path:
        return self._log_dir / f"{order}.{slot}.log"

    def _start_one(self, order: Order, slot: int) -> str:
        command = [sys.executable, "-m", _MODULE, order.campaign_uri, "--order", order.name, "--slot", str(slot)]
        with self.log_path(order.name, slot).open("wb") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=_environment(order.num_workers),
            )
        identity = _identity(psutil.Process(child.pid))
        _children[identity] = child
        return identity

    def _observe(self, handle: Handle) -> Observation:
        identities = handle.id.split(",")
        codes = [self._exit_code(identity) for identity in identities]
        logs = "\n".join(self._log_tail(handle.order, slot) for slot in range(len(identities)))
        if alive := codes.count(_ALIVE):
            return Observation(phase=Phase.RUNNING, workers_alive=alive, detail=logs)
        if all(code == 0 for code in codes):
            return Observation(phase=Phase.SUCCEEDED, detail=logs)
        if _UNKNOWN in codes:
            return Observation(phase=Phase.GONE, reason="started by another process, exit code unknown", detail=logs)
        ends = [
            f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}" for code in codes if code
        ]
        failure = gravest(failure_of_exit(code) for code in codes if code)
        return Observation(phase=Phase.FAILED, reason=", ".join(ends), detail=logs, failure=failure)

    def _exit_code(self, identity: str) -> int:
        """The exit code of a process that we started; of any other process only whether it is alive."""
        child = _children.get(identity)
        if child is None:
            return _ALIVE if _alive(identity) else _UNKNOWN
        code = child.poll()
        return _ALIVE if code is None else code

    def _log_tail(self, order: str, slot: int) -> str:
        try:
            with self.log_path(order, slot).open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - _LOG_TAIL_BYTES))
                tail = log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return tail if size <= _LOG_TAIL_BYTES else tail.partition("\n")[2] or tail  # whole lines


def default_log_dir() -> Path:
    """The setting `log_dir`, or else a folder of this user in the temporary folder."""
    return Path(Settings().log_dir or Path(tempfile.gettempdir()) / f"fanfold-{os.getuid()}" / "logs")


def _environment(num_workers: int) -> dict[str, str]:
    """Divide the CPU threads among GPU workers: OpenMP threads that spin on busy cores slow all of them down."""
    threads = str(max(1, (os.cpu_count() or 1) // num_workers))
    return {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE", **os.environ}


def _owned() -> Iterator[tuple[psutil.Process, str]]:
    """All GPU workers that run on this machine, with the names of their orders."""
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if _MODULE in command and "--order" in command and process.info["status"] != psutil.STATUS_ZOMBIE:
            yield process, command[command.index("--order") + 1]


def _identity(process: psutil.Process) -> str:
    return f"{process.pid}@{process.create_time():.2f}"


def _alive(identity: str) -> psutil.Process | None:
    try:
        process = psutil.Process(int(identity.partition("@")[0]))
        is_it = _identity(process) == identity and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if is_it else None


def _signal(process: psutil.Process, signum: signal.Signals) -> None:
    try:
        process.send_signal(signum)
    except psutil.NoSuchProcess:
        return
