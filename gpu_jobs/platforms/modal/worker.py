"""The code that runs in a Modal container: one GPU worker for each function call.

Modal's `.get()` raises exceptions of this code unchanged, so that they could be mistaken for errors of the platform.
Therefore the end of a GPU worker is always reported in the value that is returned.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TypedDict

import modal

from gpu_jobs.platforms.google_account import with_google_account
from gpu_jobs.store import open_store

log = logging.getLogger(__name__)
REGISTER = "fanfold-gpu-jobs"
"""Name of the `modal.Dict` that knows which function call is which GPU worker: `ORDER.SLOT` -> `Entry`."""
_SETTLE_S = 25.0
"""Seconds given to a GPU worker to settle; Modal kills a container about 30 s after it has asked it to end."""
_TAIL_LINES, _TAIL_CHARS = 40, 2000
_HAS_SERVED = threading.Event()
"""Set once this container has run a GPU worker, so that the next one starts warm."""


class Entry(TypedDict):
    call_id: str
    has_started: bool
    at: float
    """Unix time of the first write."""


class Envelope(TypedDict):
    """How a GPU worker ended, as its function call returns it."""

    exit_code: int
    """Exit code of the process; negative: killed by that signal."""
    log: str
    """The last lines of its log."""


def gpu_worker(campaign_uri: str, worker_id: str) -> Envelope:
    """Run a GPU worker to its end. A preempted call starts again in another container and leases what is left.

    Args:
        campaign_uri: where the campaign is.
        worker_id: `ORDER.SLOT`.
    """
    order, _, slot = worker_id.rpartition(".")
    call_id = modal.current_function_call_id() or ""
    _register(worker_id, call_id)
    command = [sys.executable, "-m", "gpu_jobs.worker", campaign_uri, "--order", order, "--slot", slot]
    warm = ["--warm"] if _HAS_SERVED.is_set() else []
    _HAS_SERVED.set()
    worker = _Worker([*command, "--handle", call_id, *warm])
    try:
        worker.start()
        worker.is_over.wait()  # not `join`: interrupted, Python 3.11 takes the thread for ended
    except BaseException:  # stopped (InputCancellation) or preempted (KeyboardInterrupt): it settles what it has
        worker.end(signal.SIGTERM)
        worker.is_over.wait(_SETTLE_S)
        raise
    finally:
        worker.end(signal.SIGKILL)
    return worker.envelope()


class _Worker(threading.Thread):
    """Starts and watches the process of a GPU worker, in a thread of its own.

    In the main thread a cancellation may raise between any two steps, so that a process could be started and then lost.
    """

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self.is_over = threading.Event()
        self._command = command
        self._lock = threading.Lock()
        self._has_ended = False
        self._process: subprocess.Popen[bytes] | None = None
        self._tail: deque[bytes] = deque(maxlen=_TAIL_LINES)

    def run(self) -> None:
        try:
            self._run()
        finally:
            self.is_over.set()

    def _run(self) -> None:
        with self._lock:
            if self._has_ended:
                return
            self._process = process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment()
            )
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._tail.append(line)
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
        process.wait()

    def end(self, signum: signal.Signals) -> None:
        """Send a signal to the process; if it has not been started yet, it never will be."""
        with self._lock:
            self._has_ended = True
            if self._process is not None:
                self._process.send_signal(signum)

    def envelope(self) -> Envelope:
        assert self._process is not None
        text = b"".join(self._tail).decode(errors="replace")
        return Envelope(exit_code=self._process.returncode, log=_end_of(text))


def try_store(store_root: str) -> str:
    """Create, read and delete one object with this container's credential; return "", or what went wrong."""
    os.environ.update(_environment())
    key = f"doctor/{modal.current_input_id()}"
    try:
        store = open_store(store_root)
        store.create(key, b"fanfold doctor")
        found = store.get(key)
        store.delete(key)
    except Exception as error:  # noqa: BLE001 - the doctor reports any error
        return f"{type(error).__name__}: {error}"
    return "" if found == b"fanfold doctor" else "what was written could not be read"


def _register(worker_id: str, call_id: str) -> None:
    """Write into the register that this GPU worker has started."""
    try:
        register = modal.Dict.from_name(REGISTER, create_if_missing=True)
        known: Entry | None = register.get(worker_id)
        if known is None or known["call_id"] == call_id:
            at = known["at"] if known else time.time()
            register.put(worker_id, Entry(call_id=call_id, has_started=True, at=at))
    except (modal.Error, OSError) as error:
        log.warning("Modal's register cannot be written: %s", error)


def _environment() -> dict[str, str]:
    """Environment of the process: the same imports as here, and the key of the Google account as a file."""
    return {
        **with_google_account(os.environ),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONUNBUFFERED": "1",
    }


def _end_of(text: str) -> str:
    """The last whole lines that fit, or the end of a line that is too long."""
    if len(text) <= _TAIL_CHARS:
        return text
    return text[-_TAIL_CHARS:].partition("\n")[2] or text[-_TAIL_CHARS:]
