"""A gang: the processes under one `torchrun` that train one model together on all GPUs of a container."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from gpu_jobs.workloads.training.gang_files import STOP, GangSpec, write_spec

_RANK = "gpu_jobs.workloads.training.rank"


class Gang:
    """One started gang. It is never restarted: the next gang or attempt resumes from the checkpoint."""

    def __init__(self, spec: GangSpec, processes: int) -> None:
        self._out = Path(spec.out)
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=0",
            f"--nproc-per-node={processes}", "-m", _RANK, str(write_spec(spec)),
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment(processes))

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def request_stop(self) -> None:
        """Ask all processes to write a checkpoint and stop; calling it again has no effect."""
        (self._out / STOP).touch()

    def wait(self) -> None:
        """Wait until the gang ends by itself."""
        self._process.wait()

    def end(self) -> int:
        """Kill all processes that still run; return torchrun's exit code."""
        if self.is_running:
            children = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        return self._process.wait()


def environment(processes: int) -> dict[str, str]:
    """Environment of a gang: cores divided among the processes, and no shared rendezvous store.

    With a shared store, a start after a crash may hang (seen with torch 2.13).
    """
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1) // processes)
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
