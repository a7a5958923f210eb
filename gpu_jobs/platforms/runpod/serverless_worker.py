"""A RunPod serverless worker: each job is one GPU worker, a process that this one awaits.

`python -m gpu_jobs.platforms.runpod.serverless_worker`. RunPod may deliver a job twice; the second GPU worker leases
what the first has left.
"""

import asyncio
import os
import signal
import sys
import tempfile
import threading
from collections import deque
from contextlib import suppress
from typing import Any

import runpod

from gpu_jobs.platforms.google_account import with_google_account

_STOP_S = 10.0
"""Seconds between SIGTERM and SIGKILL for a GPU worker whose job was cancelled or timed out."""
_TAIL_LINES, _TAIL_CHARS = 40, 2000
_HAS_SERVED = threading.Event()
"""Set once this worker has run a job, so that the next GPU worker starts warm."""


async def handler(job: dict[str, Any]) -> dict[str, Any]:
    """Run the GPU worker of a job to its end.

    Args:
        job: `{"id": …, "input": {"campaign": URI, "order": NAME, "slot": N}}`.

    Returns:
        `{"log": …}`, the end of the log, or `{"error": …}`, which makes RunPod call the job FAILED.
    """
    asked = job["input"]
    warm = ["--warm"] if _HAS_SERVED.is_set() else []
    _HAS_SERVED.set()
    with tempfile.TemporaryFile() as log:
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gpu_jobs.worker", asked["campaign"],
            "--order", asked["order"], "--slot", str(asked["slot"]), "--handle", job["id"], *warm,
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=with_google_account(os.environ),
        )  # fmt: skip
        _pass_on_sigterm(worker)
        try:
            code = await worker.wait()
        except asyncio.CancelledError:
            await _stop(worker)
            raise
        log.seek(0)
        tail = "".join(line.decode(errors="replace") for line in deque(log, _TAIL_LINES))[-_TAIL_CHARS:]
    if code == 0:
        return {"log": tail}
    ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return {"error": f"{ended}\n{tail}"}


def _pass_on_sigterm(worker: asyncio.subprocess.Process) -> None:
    """Send SIGTERM on to the GPU worker, so that it settles: RunPod's SDK waits for the job before it ends."""
    before = signal.getsignal(signal.SIGTERM)

    def pass_on(signum: int, frame: Any) -> None:
        with suppress(ProcessLookupError):
            worker.terminate()
        if callable(before):
            before(signum, frame)

    signal.signal(signal.SIGTERM, pass_on)


async def _stop(worker: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        worker.terminate()
    try:
        await asyncio.wait_for(worker.wait(), _STOP_S)
    except TimeoutError:
        worker.kill()


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
