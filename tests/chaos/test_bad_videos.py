"""Real videos among broken ones, through real GPU workers and real models: each ends where it belongs."""

import shutil

import polars as pl
import pytest

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.workloads.video.demo import make_demo_videos
from tests.chaos.havoc import finish, quarantine_of, rows_of


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    make_demo_videos(folder)
    return folder


@pytest.mark.slow
def test_each_broken_video_is_quarantined_and_every_good_row_is_there(clips, tmp_path, policy):
    """Truncated, empty, text named .mp4, missing, and changed since the split, beside two good clips."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("bikes.mp4", "carphone_pristine.mp4"):
        shutil.copy(clips / name, videos / name)
    whole = (clips / "assembled.mp4").read_bytes()
    (videos / "truncated.mp4").write_bytes(whole[: len(whole) // 3])
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("this is no video\n" * 100)
    shutil.copy(clips / "bigbuckbunny.mp4", videos / "changed.mp4")
    names = ["bikes", "carphone_pristine", "truncated", "empty", "text", "missing", "changed"]
    table = tmp_path / "videos.csv"
    pl.DataFrame({"id": names, "uri": [str(videos / f"{name}.mp4") for name in names]}).write_csv(table)
    spec = CampaignSpec(store_root=str(tmp_path / "store"), dataset=str(table), workload="video")
    campaign = open_campaign(spec, policy)
    with (videos / "changed.mp4").open("ab") as file:
        file.write(b"more")

    manifest = finish(campaign, policy)

    set_aside = quarantine_of(campaign, manifest)
    causes = {row["item"].partition("#")[0]: row["detail"] for row in set_aside.iter_rows(named=True)}
    assert set(causes) == {"truncated", "empty", "text", "missing", "changed"}
    assert "does not exist" in causes["missing"]
    assert "changed since" in causes["changed"]
    assert set_aside["attempts"].min() >= 1
    rows = rows_of(campaign, manifest)
    shots = rows.filter(pl.col("analysis") == "shot")
    assert shots.filter(pl.col("video") == "bikes")["frame"].to_list() == [0, 30, 76, 137, 187, 242]
    assert shots.filter(pl.col("video") == "carphone_pristine")["frame"].to_list() == [0]
    assert rows.filter(pl.col("video") == "truncated").height > 0, "what could be read of it is lost"
    assert manifest.is_complete
