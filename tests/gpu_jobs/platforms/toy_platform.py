"""A toy platform, as somebody else's package would bring it: GPU workers are processes that this process starts.

It has all that docs/adding-a-platform.md asks for, and imports only what that page names.
"""

import signal
import subprocess
import sys
from datetime import date

from pydantic_settings import BaseSettings, SettingsConfigDict

from gpu_jobs.errors import NoCapacityError, RefusedError
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Handle, Observation, Phase
from gpu_jobs.platforms import PlatformRow
from gpu_jobs.platforms.base import Check

ROW = PlatformRow(
    name="toy",
    title="a toy",
    adapter="toy_platform:ToyPlatform",
    settings="toy_platform:ToySettings",
    doctor="toy_platform:checks",
    offers="toy_platform:OFFERS",
    needs_bucket=False,
    max_flow_runs=3,
)
OFFERS = (
    Offer(
        platform="toy",
        gpu="abacus",
        num_gpus=1,
        region="shelf",
        mode="on-demand",
        usd_per_hour=0.36,
        priced_on=date(2026, 11, 30),
        price_source="made up",
        max_workers=8,
    ),
)


class ToySettings(BaseSettings):
    """Environment variables, each `FANFOLD_TOY_` and the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix="FANFOLD_TOY_", frozen=True)

    broken: bool = False


class ToyPlatform:
    """Implements `Platform`. The processes of all adapters, by the name of their order."""

    name = "toy"
    find_lag_s = 0.0
    processes: dict[str, list[subprocess.Popen]] = {}  # noqa: RUF012 - the toy's "cloud", shared by all adapters
    stopped: set[str] = set()  # noqa: RUF012

    def __init__(self):
        if ToySettings().broken:
            raise RefusedError("FANFOLD_TOY_BROKEN", "is set")

    def offers(self):
        return OFFERS

    async def start(self, order):
        command = [sys.executable, "-m", "gpu_jobs.worker", order.campaign_uri, "--order", order.name, "--slot"]
        try:
            self.processes[order.name] = [started([*command, str(slot)]) for slot in range(order.num_workers)]
        except OSError as error:
            raise NoCapacityError(str(error)) from error
        return self._handle(order.name)

    async def find(self, name):
        return self._handle(name) if name in self.processes else None

    async def observe(self, handles):
        return {handle: self._observe(handle) for handle in handles}

    async def stop(self, handle):
        if handle.order not in self.processes or self._observe(handle).phase.is_over:
            return
        self.stopped.add(handle.order)
        for process in self.processes[handle.order]:
            process.send_signal(signal.SIGTERM)

    async def list_owned(self, prefix):
        handles = [self._handle(name) for name in self.processes if name.startswith(prefix)]
        return [handle for handle in handles if not self._observe(handle).phase.is_over]

    def _handle(self, name):
        return Handle(platform=self.name, order=name, id=name)

    def _observe(self, handle):
        processes = self.processes.get(handle.order)
        if processes is None or handle.id != handle.order:
            return Observation(phase=Phase.GONE)
        codes = [process.poll() for process in processes]
        if alive := codes.count(None):
            return Observation(phase=Phase.RUNNING, workers_alive=alive)
        if handle.order in self.stopped:
            return Observation(phase=Phase.STOPPED, reason="stopped")
        if any(codes):
            reason = "killed by a signal" if min(codes) < 0 else f"exit code {max(codes)}"
            return Observation(phase=Phase.FAILED, reason=reason)
        return Observation(phase=Phase.SUCCEEDED)


def started(command):
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def checks(store_root):
    yield Check(name="toy", is_ok=not ToySettings().broken, found=f"campaigns go to {store_root}")
