"""RunPod as the emulator plays it, for the platform contract: real GPU worker processes in emulated pods."""

import os
import sys
from pathlib import Path
from typing import ClassVar

from havoc import wait_for

from gpu_jobs.campaign import open_campaign
from gpu_jobs.emulators.runpod import Image, RunPodEmulator
from gpu_jobs.journal import Journal, Opened, Ordered
from gpu_jobs.ledger import Ledger
from gpu_jobs.loop import order_prefix
from gpu_jobs.platforms.runpod import RunPodPlatform
from gpu_jobs.settings import Settings
from gpu_jobs.split import CampaignSpec
from gpu_jobs.testing import a_policy, an_order

ROOT = Path(__file__).parents[2]


def runpod_settings(emulator, **changes):
    settings = {
        "runpod_api_key": "emulated",
        "runpod_image": "fanfold",
        "runpod_emulator": emulator.url,
    }
    return Settings(**(settings | changes))


def fanfold_image(**env):
    """The image `fanfold`: this Python and this checkout."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"fanfold": Image(env={"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **env})}


class RunPodBench:
    """One GPU worker to a pod, so that one can be killed alone."""

    unknown_id = "pods/never-seen"
    settings: ClassVar = {"runpod_gpus_per_pod": 1, "runpod_gpu": "NVIDIA L4"}

    def __init__(self, ask):
        folder = ask("tmp_path")
        knobs = {"quota_per_minute": None, "grace_s": 2.0, "max_redeliveries": 0, "long_poll_s": 1.0}
        self.emulator = RunPodEmulator(fanfold_image(), log_dir=folder, **knobs).__enter__()
        settings = runpod_settings(self.emulator, **self.settings)
        self.platform = RunPodPlatform(settings, deadline_s=10.0, poll_s=0.1)
        (folder / "data.csv").write_text("id\n" + "".join(f"{number}\n" for number in range(500)))
        spec = CampaignSpec(
            store_root=str(folder / "store"),
            dataset=str(folder / "data.csv"),
            workload="noop",
            params={"sleep_s": 1.0},
            chunk_weight=1.0,
        )
        policy = a_policy(platforms=("local",), heartbeat_s=0.2)
        self.store = open_campaign(spec, policy).store
        self.journal = Journal(self.store)
        self.at = an_order().expires_at
        self.journal.append(Opened(opener="test", policy=policy, at=self.at), upon=self.journal.read())

    def order(self, num_workers=1, name=None):
        state = self.journal.read()
        order = an_order(
            name=name or f"{order_prefix(self.store.uri)}-{state.next_seq:04d}",
            campaign_uri=self.store.uri,
            offer=self.platform.offers()[0],
            num_workers=num_workers,
        )
        assert self.journal.append(Ordered(order=order, opener="test", reason="test", at=self.at), upon=state)
        return order

    def kill_worker(self, handle):
        def kill(world):
            alive = [pod for pod in world.pods.values() if handle.order in pod.body.name and pod.status == "RUNNING"]
            return alive[0].stop()

        self.emulator.do(kill)

    def tick(self):
        pass

    def is_working(self, handle):
        return any(beat.order == handle.order and beat.leases for beat, _ in Ledger(self.store).heartbeats())

    def close(self):
        self.emulator.__exit__()
        assert self.emulator.world.bill.num_open == 0


class RunPodServerlessBench(RunPodBench):
    """One endpoint for each GPU job, with workers of RunPod's own SDK."""

    unknown_id = "serverless/never-seen"
    settings: ClassVar = {"runpod_modes": ("serverless",), "runpod_gpu": "AMPERE_24"}
    is_slow = True  # the SDK takes seconds to import

    def kill_worker(self, handle):
        wait_for(lambda: self.emulator.do(lambda world: world.endpoint(handle.id.partition("/")[2]).kill_worker()))
