"""The comparison as a flow: published figures rent nothing; a workload is run on each platform in turn."""

import logging
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

import flows.compare_platforms as flow
from flows.compare_platforms import ComparePlatforms, compare_platforms, measure_start
from gpu_jobs.campaign.campaign import Campaign, open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.errors import RefusedError
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.store import open_store
from gpu_jobs.testing import an_offer
from tests.tasks.looks import a_job, a_look

pytestmark = pytest.mark.usefixtures("prefect_api")


def test_published_figures_are_compared_without_renting_anything(tmp_path):
    """The default: a page with all three platforms."""
    where = compare_platforms(ComparePlatforms(store_root=str(tmp_path)))

    page = Path(where).read_text()
    assert all(name in page for name in ("cloud_run", "modal", "runpod", "62.00"))


def test_a_workload_is_measured_on_this_machine(tmp_path, monkeypatch):
    """A real campaign, its cold start and pace in the table."""
    monkeypatch.setenv("FANFOLD_LOG_DIR", str(tmp_path / "logs"))
    table = tmp_path / "items.parquet"
    pl.DataFrame({"id": [f"item-{number}" for number in range(40)]}).write_parquet(table)
    asked = {"dataset": str(table), "params": {"sleep_s": 0.1}, "platforms": ["local"], "items_a_month": 10_000}

    where = compare_platforms(ComparePlatforms(store_root=str(tmp_path / "store"), **asked))

    page = Path(where).read_text()
    assert ">local<" in page
    assert "Measured by this flow." in page
    assert "none: each GPU job starts cold" in page
    assert "100% of 1 GPU job" in page
    assert not (tmp_path / "store" / "comparison-local-warm").exists()


def test_a_start_that_does_not_come_is_not_waited_for(tmp_path, monkeypatch):
    """A platform may have nothing for hours."""
    monkeypatch.setenv("FANFOLD_LOG_DIR", str(tmp_path / "logs"))
    pl.DataFrame({"id": ["item"]}).write_parquet(tmp_path / "items.parquet")
    spec = CampaignSpec(store_root=str(tmp_path), dataset=str(tmp_path / "items.parquet"), workload="noop", name="warm")
    campaign = open_campaign(spec, Policy())

    assert measure_start(campaign, Policy(), within_s=0.0) == "no GPU worker started in time"
    assert not campaign.status().is_complete


@pytest.fixture
def modal_app(modal_cloud, monkeypatch):
    """An app of our own, so that all its containers are, and a bucket that they reach."""
    with GcsEmulator() as gcs:
        gcs.make_bucket("campaigns")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        monkeypatch.setenv("FANFOLD_MODAL_APP", "compared")
        monkeypatch.setenv("FANFOLD_MODAL_SCALEDOWN_S", "600")  # however slow this machine is
        yield modal_cloud


@pytest.mark.slow
def test_where_containers_stay_a_second_campaign_measures_a_warm_start(tmp_path, modal_app):
    """It is stopped when that is known, within what the budget has left, and not repeated by the next flow run."""
    table = tmp_path / "items.parquet"
    pl.DataFrame({"id": [f"item-{number}" for number in range(100)]}).write_parquet(table)
    open_store("gs://campaigns/data").upload("items.parquet", table)
    asked = ComparePlatforms(
        store_root="gs://campaigns/runs",
        dataset="gs://campaigns/data/items.parquet",
        params={"sleep_s": 0.2},
        platforms=["modal"],
        budget_usd=5.0,
    )
    before = len(modal_app.bill.lines)

    compare_platforms(asked)
    compare_platforms(asked)

    campaign, warm = (Campaign.open(f"gs://campaigns/runs/comparison-modal{name}") for name in ("", "-warm"))
    assert len(modal_app.bill.lines) - before == 2
    assert [beat.is_warm for beat, _ in campaign.ledger.heartbeats()] == [False, False]
    assert any(beat.is_warm for beat, _ in warm.ledger.heartbeats())
    state = warm.journal.read()
    assert state.closed.reason == "a start was measured"
    assert not warm.status().is_complete
    spent_usd = campaign.status().spent_usd
    assert [entry.policy.budget_usd for entry in state.entries if entry.kind == "opened"] == [5.0 - spent_usd]
    page = open_store("gs://campaigns/runs").get("comparison.html").decode()
    assert "none seen" not in page


def test_a_platform_that_cannot_be_used_is_refused(tmp_path):
    """Before anything starts, with the field's name."""
    table = tmp_path / "items.parquet"
    pl.DataFrame({"id": ["item"]}).write_parquet(table)
    asked = ComparePlatforms(store_root=str(tmp_path / "store"), dataset=str(table), platforms=["local", "modal"])

    with pytest.raises(RefusedError, match="store_root"):
        compare_platforms(asked)
    assert Campaign.open(f"{tmp_path}/store/comparison-local").journal.read().orders == {}


def test_the_warm_start_may_cost_what_is_left_of_the_budget(monkeypatch):
    """What is still set aside for a GPU job that was not seen to end is not left."""
    policies = []
    last = a_look(1000, spent_usd=2.0, reserved_usd=3.0, jobs=(a_job(),))
    cold = SimpleNamespace(run=lambda policy: iter([last]))
    planned = SimpleNamespace(policy=Policy(), offers=[an_offer(idle_s=60.0)], campaign=cold, warm=object())
    monkeypatch.setattr(flow, "_plan", lambda compare, platform: planned)
    monkeypatch.setattr(flow, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(flow, "measured_warm_starts", lambda campaign, platform: 0)
    monkeypatch.setattr(flow, "from_campaign", lambda *_, **__: None)
    monkeypatch.setattr(flow, "measure_start", lambda campaign, policy, **_: policies.append(policy) or "closed")

    flow._measured(ComparePlatforms(store_root="memory:", platforms=["modal"], budget_usd=10.0))

    assert [policy.budget_usd for policy in policies] == [5.0]
