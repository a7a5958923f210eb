"""Cloud Run as the emulator plays it, for the platform contract: real GPU worker processes behind Google's clients."""

import os
import sys
from pathlib import Path

from gpu_jobs.campaign import open_campaign
from gpu_jobs.emulators.cloud_run import CloudRunEmulator, Image, TaskFault
from gpu_jobs.journal import Journal, Opened, Ordered
from gpu_jobs.ledger import Ledger
from gpu_jobs.loop import order_prefix
from gpu_jobs.platforms.cloud_run import CloudRunPlatform
from gpu_jobs.settings import Settings
from gpu_jobs.split import CampaignSpec
from gpu_jobs.testing import a_policy, an_order

ROOT = Path(__file__).parents[2]


def cloud_run_settings(address):
    return Settings(
        cloud_run_project="emulated",
        cloud_run_region="europe-west4",
        cloud_run_image="fanfold",
        cloud_run_gpu="nvidia-l4",
        cloud_run_emulator=address,
    )


def image(**env):
    """The image `fanfold`: this Python and this checkout."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"fanfold": Image(env={"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **env})}


class CloudRunBench:
    unknown_id = "projects/emulated/locations/europe-west4/jobs/never"

    def __init__(self, ask):
        folder = ask("tmp_path")
        self.emulator = CloudRunEmulator(image(), log_dir=folder).__enter__()
        self.platform = CloudRunPlatform(cloud_run_settings(self.emulator.grpc_address), deadline_s=10.0)
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
        self.killed = 0

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
        self.emulator.strike(handle.order, self.killed, TaskFault(kind="crashed"))
        self.killed += 1

    def tick(self):
        pass

    def is_working(self, handle):
        return any(beat.order == handle.order and beat.leases for beat, _ in Ledger(self.store).heartbeats())

    def close(self):
        self.emulator.__exit__()
        assert self.emulator.world.bill.num_running == 0
