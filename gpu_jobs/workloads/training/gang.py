"""A gang: the processes that train one model together on all GPUs of a container, under one `torchrun`."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from gpu_jobs.workloads.training.gang_files import STOP, GangSpec, write_spec

_RANK = "gpu_jobs.workloads.training.rank"


class Gang:
    """One start of a gang. It is not restarted in place: the ledger's next attempt goes on from the checkpoint."""

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
        """To stop at a checkpoint, soon. May be repeated."""
        (self._out / STOP).touch()

    def wait(self) -> None:
        """Until it has ended by itself."""
        self._process.wait()

    def end(self) -> int:
        """Kill what runs of it; return torchrun's exit code."""
        if self.is_running:
            children = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        return self._process.wait()


def environment(processes: int) -> dict[str, str]:
    """Cores shared out; and a store of its own for each start, else a start after a death may hang (torch 2.13)."""
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1) // processes)
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
