"""Runs all GPU workers of one container or machine, each in a process with its own GPUs.

`python -m gpu_jobs.worker.machine CAMPAIGN --order NAME --slots 0-3 --gpus 1 --handle ID --deadline UNIX-SECONDS`

It forwards SIGTERM, ends at the deadline even if a GPU worker hangs, and restarts GPU workers that a signal has killed
(for example out of memory), a few times. Exits 0 if all GPU workers did, else with the first other exit code.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GRACE_S = 60.0
"""GPU workers end at the deadline by themselves; those that still run this many seconds later are stopped."""
_STOP_S = 20.0
"""Seconds between SIGTERM and SIGKILL."""
_MAX_RESTARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The GPU workers of one container."""

    campaign: str
    order: str
    slots: range
    """The slots of the GPU job that run here, one for each GPU worker."""
    gpus_each: int
    """Number of GPUs of each GPU worker; with 0 every GPU worker sees all GPUs of the container."""
    handle: str
    """The platform's id of the container."""
    deadline: float
    """When to end at the latest, in Unix seconds."""

    def run(self, environ: Mapping[str, str]) -> int:
        """Run all GPU workers until they end; return the exit code. Must be called from the main thread."""
        return _Run(self, environ).run()

    def command(self, slot: int) -> list[str]:
        return [
            sys.executable, "-m", "gpu_jobs.worker", self.campaign,
            "--order", self.order, "--slot", str(slot), "--handle", f"{self.handle}/{slot}",
        ]  # fmt: skip

    def environment(self, slot: int, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of one GPU worker, with its GPUs and its number of CPU threads."""
        threads = max(1, _num_cpus() // len(self.slots))
        shared = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", **environ}
        if not self.gpus_each:
            return shared
        first = (slot - self.slots.start) * self.gpus_each
        given = environ.get("CUDA_VISIBLE_DEVICES", "")
        devices = given.split(",") if given else list(map(str, range(len(self.slots) * self.gpus_each)))
        return {**shared, "CUDA_VISIBLE_DEVICES": ",".join(devices[first : first + self.gpus_each])}


class _Run:
    def __init__(self, machine: Machine, environ: Mapping[str, str]) -> None:
        self._machine = machine
        self._environ = environ
        self._alive: dict[int, tuple[int, subprocess.Popen[bytes]]] = {}
        """Slot and process by pid."""
        self._restarts = 0
        self._is_ending = False
        self._code = 0

    def run(self) -> int:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: self._end())
        signal.signal(signal.SIGALRM, lambda *_: self._on_alarm())
        signal.setitimer(signal.ITIMER_REAL, max(1.0, self._machine.deadline + GRACE_S - time.time()))
        for slot in self._machine.slots:
            self._start(slot)
        while self._alive:
            self._handle_exit(*os.waitpid(-1, 0))
        signal.setitimer(signal.ITIMER_REAL, 0)
        return self._code

    def _start(self, slot: int) -> None:
        environ = self._machine.environment(slot, self._environ)
        process = subprocess.Popen(self._machine.command(slot), stdin=subprocess.DEVNULL, env=environ)
        self._alive[process.pid] = (slot, process)

    def _handle_exit(self, pid: int, status: int) -> None:
        slot, process = self._alive.pop(pid)
        code = process.returncode = os.waitstatus_to_exitcode(status)
        if code >= 0 or self._is_ending or self._restarts >= _MAX_RESTARTS:
            self._code = self._code or code
            return
        self._restarts += 1
        print(f"GPU worker in slot {slot} was killed by {signal.Signals(-code).name}; restarting it", flush=True)  # noqa: T201
        self._start(slot)

    def _end(self) -> None:
        self._is_ending = True
        self._signal(signal.SIGTERM)
        signal.setitimer(signal.ITIMER_REAL, _STOP_S)

    def _on_alarm(self) -> None:
        if self._is_ending:
            self._signal(signal.SIGKILL)
        else:
            self._end()

    def _signal(self, signum: signal.Signals) -> None:
        for pid in list(self._alive):
            os.kill(pid, signum)


def _parse() -> Machine:
    parser = argparse.ArgumentParser(
        prog="python -m gpu_jobs.worker.machine", description="All GPU workers of a machine."
    )
    parser.add_argument("campaign", help="where the campaign is: a folder or gs://bucket/prefix")
    parser.add_argument("--order", required=True, help="name of the GPU job that the GPU workers belong to")
    parser.add_argument("--slots", required=True, help="first and last slot of the GPU job, such as 0-3")
    parser.add_argument("--gpus", type=int, required=True, help="GPUs of each GPU worker; 0: each sees all GPUs")
    parser.add_argument("--handle", required=True, help="the platform's id of this machine")
    parser.add_argument("--deadline", type=float, required=True, help="when to end at the latest, in Unix seconds")
    arguments = parser.parse_args()
    first, _, last = arguments.slots.partition("-")
    return Machine(
        campaign=arguments.campaign,
        order=arguments.order,
        slots=range(int(first), int(last) + 1),
        gpus_each=arguments.gpus,
        handle=arguments.handle,
        deadline=arguments.deadline,
    )


def _num_cpus() -> int:
    """Return the number of CPUs that the container may use; `os.cpu_count` counts those of the whole host."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no quota, or an older kernel
        return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    sys.exit(_parse().run(os.environ))
