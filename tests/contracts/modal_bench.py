"""Modal as the emulator plays it, for the platform contract: real GPU workers in the real container entry point."""

import asyncio

import psutil

from gpu_jobs.jobs.names import order_prefix
from gpu_jobs.jobs.orders import Phase
from gpu_jobs.platforms.modal.adapter import ModalPlatform
from gpu_jobs.platforms.modal.settings import ModalSettings
from tests.chaos.havoc import wait_for
from tests.contracts.bench import CampaignBench


class ModalBench(CampaignBench):
    """All benches share one emulator, and so its warm containers."""

    unknown_id = "never"

    def __init__(self, ask):
        self.cloud = ask("modal_cloud")
        folder = ask("tmp_path")
        self.platform = ModalPlatform(ModalSettings(emulator=self.cloud.url), deadline_s=20.0, find_lag_s=60.0)
        super().__init__(folder)

    def kill_worker(self, handle):
        """The GPU worker's process, in its container."""
        wait_for(lambda: workers(handle.order))
        workers(handle.order)[0].kill()

    def close(self):
        """Nothing of this test is left at work in any container."""
        self.cloud.cancel_all()
        self.cloud.wait(lambda: not self.cloud.unfinished() and not workers(order_prefix(self.store.uri)))


BENCHES = {"modal": ModalBench}


def workers(order):
    """Processes of GPU workers in containers, of orders whose names begin so, the oldest first."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "create_time", "status"]):
        command, environ = process.info["cmdline"] or [], process.info["environ"] or {}
        is_one = "gpu_jobs.worker" in command and "MODAL_TASK_ID" in environ
        if is_one and command[command.index("--order") + 1].startswith(order):
            found.append(process)
    return sorted(found, key=lambda each: each.info["create_time"])


async def until(bench, handle, holds):
    while not holds(seen := (await bench.platform.observe([handle]))[handle]):
        assert not seen.phase.is_over, seen
        await asyncio.sleep(0.05)
    return seen


async def running(bench, num_workers=1):
    handle = await bench.platform.start(bench.order(num_workers))
    await until(bench, handle, lambda seen: seen.phase is Phase.RUNNING)
    return handle


async def calls_of(bench, handle):
    return [entry["call_id"] for entry in (await bench.platform._registered())[handle.order].values()]


def settings_for(cloud, **changes):
    return ModalSettings(emulator=cloud.url, **changes)
