"""One campaign over this machine and all three emulated clouds at once, through the vendors' own clients."""

import polars as pl
import pytest
from cloud_run_bench import cloud_run_settings, image
from havoc import gpu_workers, rows_of, wait_for
from runpod_bench import fanfold_image, runpod_settings

from gpu_jobs.campaign import open_campaign
from gpu_jobs.collect import collect
from gpu_jobs.emulators.cloud_run import CloudRunEmulator, TaskFault
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.emulators.runpod import RunPodEmulator
from gpu_jobs.jobs import Policy
from gpu_jobs.platforms.cloud_run import CloudRunPlatform
from gpu_jobs.platforms.local import LocalPlatform
from gpu_jobs.platforms.modal import ModalPlatform
from gpu_jobs.platforms.runpod import RunPodPlatform
from gpu_jobs.settings import Settings
from gpu_jobs.split import CampaignSpec
from gpu_jobs.store import open_store
from gpu_jobs.workloads.noop import value_of

pytestmark = pytest.mark.slow
GPU = "NVIDIA L4"
NAMES = ("local", "cloud_run", "modal", "runpod")
ITEMS = [f"ok-{index}" for index in range(400)]
POLICY = Policy(
    platforms=NAMES,
    objective="fastest",
    max_workers=4,
    heartbeat_s=0.5,
    lease_timeout_s=5.0,
    part_s=1.0,
    is_canary_first=True,
)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    with GcsEmulator() as gcs:
        gcs.make_bucket("campaigns")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        pl.DataFrame({"id": ITEMS}).write_parquet(tmp_path / "items.parquet")
        open_store("gs://campaigns/data").upload("items.parquet", tmp_path / "items.parquet")
        yield gcs


def test_work_moves_from_platforms_that_fail_and_every_row_is_there_once(bucket, modal_cloud, tmp_path):
    """When all four are at work RunPod's stock and pods are lost, then Cloud Run has no GPU left: the others finish."""
    spec = CampaignSpec(
        store_root="gs://campaigns/root",
        dataset="gs://campaigns/data/items.parquet",
        workload="noop",
        params={"sleep_s": 0.3},
        chunk_weight=10,
    )
    campaign = open_campaign(spec, POLICY)
    google = CloudRunEmulator(image(STORAGE_EMULATOR_HOST=bucket.url), log_dir=tmp_path, stop_grace_s=5.0)
    runpod = RunPodEmulator(fanfold_image(STORAGE_EMULATOR_HOST=bucket.url), log_dir=tmp_path, quota_per_minute=None)
    lost: list[str] = []
    with google, runpod:
        platforms = [
            LocalPlatform(),
            CloudRunPlatform(cloud_run_settings(google.grpc_address), deadline_s=30.0),
            ModalPlatform(Settings(modal_emulator=modal_cloud.url), deadline_s=30.0),
            RunPodPlatform(runpod_settings(runpod, runpod_gpu=GPU), deadline_s=10.0, poll_s=0.2),
        ]
        for progress in campaign.run(POLICY, platforms, tick_s=0.2):
            done = {job.platform: job.items_done for job in progress.jobs}
            if not lost and len(done) == len(NAMES) and min(done.values()) >= 20:
                lose_runpod(runpod, lost)
            if len(lost) == 1 and progress.items_done >= 200:
                lose_cloud_run(google, progress, lost)
        wait_for(lambda: runpod.world.bill.num_open == 0)

        assert progress.is_complete
        assert google.world.bill.num_running == 0
    assert gpu_workers(campaign) == []
    rows = rows_of(campaign, collect(campaign.store, campaign.plan))
    assert rows.rows() == [(number, name, value_of(name)) for number, name in enumerate(ITEMS)]
    assert lost == ["runpod", "cloud_run"]
    by_platform = campaign.cost().group_by("platform").agg(pl.col("items").sum(), pl.col("usd").sum())
    assert set(by_platform["platform"]) == set(NAMES)
    assert by_platform["items"].min() >= 20
    print(by_platform)
    for name in lost:
        whys = [job.reason for job in progress.jobs if job.platform == name and job.status == "failed"]
        print(name, whys)
        assert whys


def lose_runpod(emulator, lost):
    """Its data centre has no GPU left, and the pods at work die by RunPod's fault."""
    emulator.world.stock[GPU, "EU-RO-1"] = 0

    def fail(world):
        (pod,) = (pod for pod in world.pods.values() if pod.status == "RUNNING")
        return pod.fail()

    emulator.do(fail)
    emulator.world.stock[GPU, "EU-RO-1"] = 0  # the pod has given its own back
    lost.append("runpod")


def lose_cloud_run(emulator, progress, lost):
    """Its GPU worker is killed, and the quota of GPUs is used up by others."""
    emulator.world.gpu_quota["nvidia-l4"] = 0
    (order,) = (job.order for job in progress.jobs if job.platform == "cloud_run" and job.workers_alive)
    emulator.strike(order, 0, TaskFault(kind="killed"))
    lost.append("cloud_run")
