"""RunPod as the emulator plays it, for the platform contract: real GPU worker processes in emulated pods."""

import asyncio
import time
from typing import ClassVar

from gpu_jobs.emulators.runpod import Image, RunPodEmulator
from gpu_jobs.platforms.runpod.adapter import RunPodPlatform
from gpu_jobs.platforms.runpod.settings import RunPodSettings
from tests.chaos.havoc import wait_for
from tests.contracts.bench import CampaignBench, image_environ


def runpod_settings(emulator, /, **changes):
    settings = {
        "api_key": "emulated",
        "image": "fanfold",
        "emulator": emulator.url,
    }
    return RunPodSettings(**(settings | changes))


def fanfold_image(**env):
    """The image `fanfold`: this Python and this checkout."""
    return {"fanfold": Image(env=image_environ(**env))}


class RunPodBench(CampaignBench):
    """One GPU worker to a pod, so that one can be killed alone."""

    unknown_id = "pods/never-seen"
    settings: ClassVar = {"gpus_per_pod": 1, "gpu": "NVIDIA L4"}

    def __init__(self, ask):
        folder = ask("tmp_path")
        knobs = {"quota_per_minute": None, "grace_s": 2.0, "max_redeliveries": 0, "long_poll_s": 1.0}
        self.emulator = RunPodEmulator(fanfold_image(), log_dir=folder, **knobs).__enter__()
        settings = runpod_settings(self.emulator, **self.settings)
        self.platform = RunPodPlatform(settings, deadline_s=10.0, poll_s=0.1)
        super().__init__(folder)

    def kill_worker(self, handle):
        def kill(world):
            alive = [pod for pod in world.pods.values() if handle.order in pod.body.name and pod.status == "RUNNING"]
            return alive[0].stop()

        self.emulator.do(kill)

    def close(self):
        self.emulator.__exit__()
        assert self.emulator.world.bill.num_open == 0


class RunPodServerlessBench(RunPodBench):
    """One endpoint for each GPU job, with workers of RunPod's own SDK."""

    unknown_id = "serverless/never-seen"
    settings: ClassVar = {"modes": ("serverless",), "gpu": "AMPERE_24"}
    is_slow = True  # the SDK takes seconds to import

    def kill_worker(self, handle):
        wait_for(lambda: self.emulator.do(lambda world: world.endpoint(handle.id.partition("/")[2]).kill_worker()))


BENCHES = {"runpod": RunPodBench, "runpod-serverless": RunPodServerlessBench}


def script(runpod, *faults):
    runpod.do(lambda world: world.script.faults.extend(faults))


def pods(runpod):
    return [pod for pod in runpod.world.pods.values() if pod.status != "TERMINATED"]


async def seen(platform, handle):
    return (await platform.observe([handle]))[handle]


async def until(platform, handle, holds):
    give_up_at = time.monotonic() + 60
    while not holds(observation := await seen(platform, handle)):
        assert time.monotonic() < give_up_at, observation
        await asyncio.sleep(0.05)
    return observation
