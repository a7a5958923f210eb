"""A campaign from the form in Prefect's UI to its report, in a real browser."""

import re
from collections.abc import Iterator
from uuid import UUID

import polars as pl
import pytest
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.workloads.video.demo import make_demo_videos
from tests.flows.browser import PrefectPages, open_browser
from tests.flows.real_prefect import Prefect, gpu_workers, wait_for
from tests.project import ROOT

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]
DEPLOYMENT = "video-analysis/video-analysis"
PICTURES = ROOT / "build" / "ui"


@pytest.fixture
def pages(served) -> Iterator[PrefectPages]:
    """The browser; screenshots go to build/ui/."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    served.start_worker()
    with open_browser() as page:
        yield PrefectPages(page, served.url.removesuffix("/api"), PICTURES)


def test_from_the_form_to_the_report(served: Prefect, pages: PrefectPages, tmp_path):
    """Fill the form in, be refused, mend it, submit; watch the items move; read summary and report."""
    make_demo_videos(tmp_path / "videos")
    before = {run.id for run in served.runs_of("video-analysis")}
    with served.client() as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT).id
    pages.open_form(deployment)
    wanted = ["Dataset", "What to do", "Where it may run", "Limits", "Campaign name", "Advanced"]
    assert [title for title in pages.titles() if title in wanted] == wanted
    assert pages.value("Dataset") == "demo"
    pages.fill("Dataset", str(tmp_path / "videos" / "bikes.mp4"))
    pages.fill("Segment, seconds", "0.5")
    pages.fill("Store", str(tmp_path / "store"))
    pages.fill("Campaign name", "from-the-form")
    pages.fill("GPU workers", "0")
    pages.keep("1-form", height=3900)

    pages.submit()
    pages.see("campaign.limits.max_workers")
    pages.keep("2-refused", height=3900)
    assert {run.id for run in served.runs_of("video-analysis")} == before

    pages.fill("GPU workers", "1")
    pages.submit_and_leave()
    (run,) = wait_for(
        lambda: {run.id for run in served.runs_of("video-analysis")} - before, 60, "the form makes a flow run"
    )

    seen = watch_progress(served, pages, run)
    assert any(0 < percent < 100 for percent in seen), seen
    assert seen == sorted(seen)
    assert seen[-1] == 100
    served.wait_until(run, "Completed")

    pages.open_artifact(artifact(served, run, "from-the-form-summary"))
    pages.keep("5-summary", height=1700)
    assert "Cost and waste" in pages.text
    (report,) = re.findall(r"\S+/report\.html", pages.text)
    assert pages.picture_sizes() == [(1100, 152)]  # one lane
    pages.open_run(run)
    pages.see("from-the-form-gpu-jobs")
    pages.keep("6-run", height=1400)
    pages.open_file(report)
    pages.see("Every item is settled.")
    pages.keep("7-report", height=2600)
    rows = Campaign.open(str(tmp_path / "store" / "from-the-form")).outputs()
    assert rows.filter(pl.col("analysis") == "shot").collect().height > 1


def watch_progress(served: Prefect, pages: PrefectPages, run: UUID) -> list[float]:
    """What the page of the progress artifact shows, until it shows 100 %; pictures on the way."""
    progress = wait_for(lambda: artifact(served, run, "from-the-form-progress"), 120, "progress is shown")
    seen = [0.0]

    def has_ended() -> bool:
        pages.open_artifact(progress)
        (shown,) = re.findall(r"Progress: ([\d.]+)%", pages.text)
        if 0 < float(shown) < 100 and seen[-1] == 0:
            pages.keep("3-progress")
            pages.open_artifact(artifact(served, run, "from-the-form-gpu-jobs"))
            pages.keep("4-gpu-jobs")
        seen.append(float(shown))
        return seen[-1] == 100

    wait_for(has_ended, 300, "all items are done")
    return seen


def artifact(served: Prefect, run: UUID, key: str) -> UUID | None:
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    with served.client() as client:
        return next((each.id for each in client.read_artifacts(artifact_filter=wanted) if each.key == key), None)


def test_a_cancel_from_the_page_stops_two_gpu_workers(served: Prefect, pages: PrefectPages, slowly):
    """Clicked while they work: both are gone within Prefect's grace, what they finished is kept, and it can go on."""
    root = served.clone / "fanfold-store"
    run = slowly(name="clicked")
    wait_for(lambda: len(gpu_workers(root)) == 2, 120, "two GPU workers run")
    campaign = Campaign.open(str(root / "clicked"))
    wait_for(lambda: list(campaign.store.list("parts/")), 60, "something is finished")

    pages.cancel_run(run)

    wait_for(lambda: not gpu_workers(root), 30, "all GPU workers are gone")
    assert served.wait_until(run, "Cancelled")
    assert not campaign.journal.read().live_orders
    settled = campaign.status().num_items - campaign.status().items_left
    assert 0 < settled < 40
    pages.open_run(run)
    pages.keep("8-cancelled", height=1400)
    pages.open_artifact(artifact(served, run, "clicked-stopped"))
    pages.see("all GPU jobs have ended")
    pages.keep("9-stopped")
    again = slowly(name="clicked")
    assert served.wait_until(again, "Completed", "Failed", "Crashed").is_completed()
    assert campaign.outputs().collect().height == 40
