"""What docs/run-it-on-cloud-run.md tells a user to type is typed here, as far as no account is needed."""

import json
import os
import re
import subprocess
import sys

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from flows.video_analysis import VideoAnalysis
from gpu_jobs.platforms.cloud_run.doctor import PERMISSIONS
from gpu_jobs.platforms.cloud_run.settings import CloudRunSettings
from gpu_jobs.settings import Settings
from gpu_jobs.workloads.video.demo import make_demo_videos
from tests.project import ROOT

PAGE = (ROOT / "docs" / "run-it-on-cloud-run.md").read_text()
BLOCKS = [block.replace("\\\n", " ") for block in re.findall(r"^```\w*\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)]


def command(start):
    """The one command of the page that begins so."""
    (found,) = [line for block in BLOCKS for line in block.splitlines() if line.startswith(start)]
    return found


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Runs a line of the page in a folder with the demo's two short videos, and returns what is printed."""
    (tmp_path / "bin").mkdir()
    for name, run in {"fanfold": "-m gpu_jobs.cli", "python": ""}.items():
        script = tmp_path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {run} "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(line):
        ended = subprocess.run(
            ["/bin/sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=800, check=False
        )
        assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    return run


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_the_rehearsal_finds_the_rows_that_this_machine_finds(shell, tmp_path):
    """Ids and whatever is counted alike, floats within 1e-4."""
    make_demo_videos(tmp_path / "demo" / "videos")
    for long in ("assembled.mp4", "bigbuckbunny.mp4"):
        (tmp_path / "demo" / "videos" / long).unlink()

    said = shell(command("fanfold rehearse"))
    shell("python -m flows.video_analysis --dataset demo/videos --store-root here --max-workers 2")

    rehearsed, local = (
        pl.read_parquet(folder / "*/outputs/*/part-*.parquet").with_columns(
            pl.col("item", "video").str.replace("^.*/", "")
        )
        for folder in (tmp_path / "fanfold-rehearsal/gcs/objects/rehearsal/runs", tmp_path / "here")
    )
    assert rehearsed.height > 10
    assert_frame_equal(rehearsed, local, abs_tol=1e-4)
    assert re.search(r"cloud_run: \d instances?, [\d.]+ s: \$\d", said)
    assert "still running: 0" in said


def test_the_doctor_runs_in_a_rehearsal(shell):
    line = command("fanfold doctor").replace("$BUCKET", "rehearsal")

    said = shell(f"fanfold rehearse -- {line}").splitlines()

    assert [each for each in said if each.startswith("ok")] == [
        "ok      settings: nvidia-l4 in europe-west4",
        "ok      a GPU job on trial: accepted on nvidia-l4; nothing was created",
        "ok      store: gs://rehearsal/runs: one writer wins, the next is refused",
    ]


def test_what_the_deployment_is_given_is_what_its_flow_takes():
    block = next(block for block in BLOCKS if block.startswith("prefect deployment run"))

    campaign = VideoAnalysis.model_validate(json.loads(re.search(r"campaign='(.*)'", block, re.DOTALL)[1]))

    assert campaign.policy.platforms == ("cloud_run",)
    assert campaign.policy.budget_usd == 5


def test_the_role_holds_what_the_doctor_looks_for():
    role = next(block for block in BLOCKS if "gcloud iam roles create" in block)

    assert sorted(re.findall(r"run\.\w+\.\w+", role)) == sorted(PERMISSIONS)


def test_every_setting_that_is_named_exists():
    known = {f"FANFOLD_{name.upper()}" for name in Settings.model_fields}
    known |= {f"FANFOLD_CLOUD_RUN_{name.upper()}" for name in CloudRunSettings.model_fields}

    assert set(re.findall(r"FANFOLD_[A-Z_]+", PAGE)) <= known


def test_every_file_that_is_named_exists():
    named = re.findall(r"gpu_jobs/platforms/image/[\w.]+", PAGE)

    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
