"""The Python of README and docs, as it stands there, against a real server; only places are put in."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl
import pytest
from prefect.events import emit_event

from gpu_jobs.workloads.video.demo import make_demo_videos
from tests.flows.real_prefect import Prefect, wait_for
from tests.project import ROOT

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


def block(page: str, holding: str, places: Mapping[str, str] = MappingProxyType({})) -> str:
    """The only block of a page that holds a text, with other places in it."""
    (found,) = (
        text for text in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL) if holding in text
    )
    for place, other in places.items():
        assert place in found
        found = found.replace(place, other)
    return found


def run(code: str) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "documented"}
    exec(compile(code, "documented", "exec"), scope)
    return scope


@pytest.fixture
def videos(tmp_path) -> Path:
    make_demo_videos(tmp_path / "all")
    (tmp_path / "videos").mkdir()
    (tmp_path / "all" / "bikes.mp4").rename(tmp_path / "videos" / "bikes.mp4")
    return tmp_path / "videos"


def test_a_flow_is_called_in_process(served, videos, monkeypatch, capsys):
    """It returns where the campaign is and what became of its items."""
    monkeypatch.chdir(videos.parent)

    run(block("README.md", "video_analysis(VideoAnalysis("))

    campaign, committed, quarantined = capsys.readouterr().out.split("\n")[-2].rsplit(" ", 2)
    assert Path(campaign).is_relative_to(videos.parent / "fanfold-store")
    assert int(committed) > 0
    assert int(quarantined) == 0


def test_a_deployment_is_run_followed_and_read(served: Prefect, videos, capsys):
    """Started by name, followed while it runs, its rows in a LazyFrame, its dollars by class."""
    root = videos.parent / "runs"
    served.start_worker()
    places = {"gs://my-bucket/videos": str(videos), "gs://my-bucket/runs": str(root)}
    flow_run = run(block("README.md", "run_deployment(", places))["flow_run"]
    wait_for((root / "holidays" / "plan.json").exists, 120, "the campaign begins")

    run(block("README.md", "campaign.status()", {"gs://my-bucket/runs": str(root), "sleep(10)": "sleep(1)"}))
    assert served.wait_until(flow_run.id, "Completed", "Failed", "Crashed").is_completed()
    rows = run(block("README.md", "campaign.outputs()", {"gs://my-bucket/runs": str(root)}))["rows"]

    assert isinstance(rows, pl.LazyFrame)
    assert rows.filter(pl.col("analysis") == "shot").collect().height == 6
    assert "useful" in capsys.readouterr().out


def test_the_automation_runs_a_deployment_when_a_budget_is_near(served: Prefect):
    """With the event's dollars as its parameter."""
    served.start_worker()
    with served.client() as client:
        reaper = client.read_deployment_by_name("reap-orphans/reap-orphans").id
    parameters = '{"spent_usd": "{{ event.payload.spent_usd }}"}'
    asked = """{"reaper": {"store_root": "./{{ event.payload.spent_usd }}", "dry_run": True}}"""
    run(
        block(
            "docs/events.md",
            "fanfold.budget.near",
            {"deployment_id=...": f"deployment_id={str(reaper)!r}", parameters: asked},
        )
    )

    def has_come() -> bool:
        """The server may have missed events of the automation's first seconds."""
        emit_event("fanfold.budget.near", resource=resource, payload={"spent_usd": 8.5})
        time.sleep(3)
        runs = served.runs_of("reap-orphans")
        return any(run.parameters["reaper"].get("store_root") == "./8.5" for run in runs)

    resource = {"prefect.resource.id": "fanfold.campaign.a"}

    def is_over() -> bool:
        """A flow run that its Prefect worker leaves behind would hold the deployment's only slot for minutes."""
        asked = [run for run in served.runs_of("reap-orphans") if not run.auto_scheduled]
        return all(run.state and run.state.is_final() for run in asked)

    wait_for(has_come, 90, "the automation has run the deployment")
    with served.client() as client:
        client.delete_automation(client.read_automations_by_name("fanfold-budget")[0].id)
    wait_for(is_over, 120, "all of them are over")
