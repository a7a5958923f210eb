"""A real Prefect server and real Prefect workers on loopback, in a copy of the project, each ended by its own pid."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort

from tests.project import ROOT

POOL = "fanfold"
ZOMBIE_AFTER_S = 65
_T = TypeVar("_T")

SLOW_DEPLOYMENT = """
name: fanfold
deployments:
  - name: slow
    entrypoint: tests/flows/served_flows.py:slow
    tags: [fanfold]
    work_pool: {name: fanfold}
    concurrency_limit: {limit: 1, collision_strategy: ENQUEUE}
"""


def wait_for(what: Callable[[], _T], within_s: float, why: str) -> _T:
    """The first truthy answer."""
    give_up_at = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < give_up_at, f"waited {within_s:.0f} s in vain: {why}"
        time.sleep(0.2)
    return found


@dataclass
class Prefect:
    """A server, a clone of the project, and the Prefect workers that a test has started."""

    folder: Path
    port: int
    server: "subprocess.Popen[bytes] | None" = None
    workers: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def clone(self) -> Path:
        return self.folder / "clone"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return {
            **kept,
            "PREFECT_HOME": str(self.folder / "home"),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "gpu_jobs",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.clone), os.environ.get("PYTHONPATH", "")])),
            "FANFOLD_LOG_DIR": str(self.folder / "logs"),
            "HF_HUB_OFFLINE": "1",
        }

    def copy_project(self) -> None:
        """What a clean clone has, and the slow flow."""
        for name in ("flows", "tasks", "gpu_jobs"):
            shutil.copytree(ROOT / name, self.clone / name, ignore=shutil.ignore_patterns("__pycache__"))
        (self.clone / "tests/flows").mkdir(parents=True)
        for name in ("prefect.yaml", "pyproject.toml", "tests/flows/served_flows.py"):
            shutil.copy(ROOT / name, self.clone / name)
        (self.clone / "slow.yaml").write_text(SLOW_DEPLOYMENT)

    def start_server(self) -> None:
        self.server = self._popen("server", ["server", "start", "--host", "127.0.0.1", "--port", str(self.port)])
        wait_for(self._is_healthy, 180, "the server starts")

    def _is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def start_worker(self) -> "subprocess.Popen[bytes]":
        name = f"worker-{len(self.workers)}"
        worker = self._popen(name, ["worker", "start", "--pool", POOL, "--type", "process", "--name", name])
        self.workers.append(worker)
        return worker

    def stop_workers(self) -> None:
        for worker in self.workers:
            end(worker, signal.SIGTERM)
        self.workers.clear()

    def close(self) -> None:
        self.stop_workers()
        if self.server:
            end(self.server, signal.SIGTERM)

    def run(self, *arguments: str) -> str:
        """Run a command in the clone to its end; return its output."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            env=self.environment,
            cwd=self.clone,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _popen(self, log: str, arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{log}.log").open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "prefect", *arguments],
                env=self.environment,
                cwd=self.clone,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    # What a test asks the API.

    def client(self) -> SyncPrefectClient:
        return get_client(sync_client=True)

    def start(self, deployment: str, **parameters: Any) -> UUID:
        """Like `run_deployment(..., timeout=0)`."""
        with self.client() as client:
            found = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(found.id, parameters=parameters).id

    def runs_of(self, deployment: str) -> list[FlowRun]:
        """Flow runs of a deployment, the oldest first: those that are scheduled ahead may not all be among them."""
        of_it = DeploymentFilter(name=DeploymentFilterName(any_=[deployment]))
        with self.client() as client:
            return client.read_flow_runs(deployment_filter=of_it, sort=FlowRunSort.START_TIME_ASC)

    def flow_run(self, run: UUID) -> FlowRun:
        with self.client() as client:
            return client.read_flow_run(run)

    def state(self, run: UUID) -> State:
        found = self.flow_run(run).state
        assert found is not None
        return found

    def wait_until(self, run: UUID, *names: str, within_s: float = 180) -> State:
        """Wait for a flow run's state to have one of these names."""

        def has_come() -> State | None:
            state = self.state(run)
            return state if state.name in names else None

        try:
            return wait_for(has_come, within_s, f"flow run becomes {names}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self.state(run)!r}") from None

    def set_state(self, run: UUID, state: State) -> None:
        with self.client() as client:
            client.set_flow_run_state(run, state)

    def history(self, run: UUID) -> list[str]:
        with self.client() as client:
            return [str(state.name) for state in client.read_flow_run_states(run)]

    def processes_of(self, run: UUID) -> list[psutil.Process]:
        """The process of a flow run and all that it has started, by its id in their environment."""
        mark = str(run)
        return [process for process in psutil.process_iter() if mark in _environment(process).values()]

    def flow_processes(self, run: UUID) -> list[psutil.Process]:
        """The same without its GPU workers and their children."""
        return [process for process in self.processes_of(run) if not _is_of_gpu_worker(process)]


def end(process: "subprocess.Popen[bytes]", signum: signal.Signals) -> None:
    """Signal a process that we have started and wait for its end, by force if need be."""
    if process.poll() is None:
        process.send_signal(signum)
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def gpu_workers(root: Path) -> list[psutil.Process]:
    """Living GPU workers of all campaigns under a store root."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        is_alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if is_alive and "gpu_jobs.worker" in command and any(word.startswith(f"{root}/") for word in command):
            found.append(process)
    return found


def _is_of_gpu_worker(process: psutil.Process) -> bool:
    command = " ".join(process.cmdline())
    return "gpu_jobs.worker" in command or "multiprocessing" in command


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        return process.environ() if alive else {}
    except psutil.Error:
        return {}
