"""Cloud Run as the emulator plays it, for the platform contract: real GPU worker processes behind Google's clients."""

from gpu_jobs.emulators.cloud_run import CloudRunEmulator, Image, TaskFault
from gpu_jobs.platforms.cloud_run.adapter import CloudRunPlatform
from gpu_jobs.platforms.cloud_run.settings import CloudRunSettings
from tests.contracts.bench import CampaignBench, image_environ


def cloud_run_settings(address):
    return CloudRunSettings(
        project="emulated",
        region="europe-west4",
        image="fanfold",
        gpu="nvidia-l4",
        emulator=address,
    )


def image(**env):
    """The image `fanfold`: this Python and this checkout."""
    return {"fanfold": Image(env=image_environ(**env))}


class CloudRunBench(CampaignBench):
    unknown_id = "projects/emulated/locations/europe-west4/jobs/never"

    def __init__(self, ask):
        folder = ask("tmp_path")
        self.emulator = CloudRunEmulator(image(), log_dir=folder).__enter__()
        self.platform = CloudRunPlatform(cloud_run_settings(self.emulator.grpc_address), deadline_s=10.0)
        super().__init__(folder)
        self.killed = 0

    def kill_worker(self, handle):
        self.emulator.strike(handle.order, self.killed, TaskFault(kind="crashed"))
        self.killed += 1

    def close(self):
        self.emulator.__exit__()
        assert self.emulator.world.bill.num_running == 0


BENCHES = {"cloud_run": CloudRunBench}
