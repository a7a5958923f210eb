"""A campaign as a script sees it: status, outputs, quarantine, cost; in a folder and in an emulated bucket."""

import polars as pl
import pytest
from pytest_socket import socket_allow_hosts

from gpu_jobs.campaign.campaign import Campaign, open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.errors import CampaignError
from gpu_jobs.jobs.costs import CLASSES
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.workloads.noop import value_of

POLICY = Policy(max_workers=1, heartbeat_s=0.5)


@pytest.fixture(params=["folder", "bucket"])
def store_root(request, tmp_path, monkeypatch):
    """Where campaigns go; GPU workers reach the emulated bucket as well."""
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)
    with GcsEmulator() as gcs:
        gcs.make_bucket("campaigns")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        yield f"gs://campaigns/{tmp_path.name}"


@pytest.fixture
def campaign(store_root, tmp_path, monkeypatch) -> Campaign:
    """Forty items, planned and not begun."""
    monkeypatch.setenv("FANFOLD_LOG_DIR", str(tmp_path / "logs"))
    table = tmp_path / "items.parquet"
    pl.DataFrame({"id": [f"item-{number}" for number in range(40)]}).write_parquet(table)
    return open_campaign(CampaignSpec(store_root=store_root, dataset=str(table), workload="noop"), POLICY)


def test_before_it_has_begun(campaign):
    """Status and cost are those of nothing; outputs are refused with a sentence."""
    found = Campaign.open(campaign.store.uri)

    status = found.status()
    assert (status.items_done, status.num_items, status.items_left, status.jobs) == (0, 40, 40, ())
    assert found.cost().height == 0
    assert found.cost_by_class()["seconds"].sum() == 0
    with pytest.raises(CampaignError, match="nothing was published yet at"):
        found.outputs()


def test_while_it_runs(campaign):
    """Another process sees the GPU job, its GPU workers by their heartbeats, and dollars so far."""
    for progress in campaign.run(POLICY, tick_s=0.1):
        if progress.jobs and progress.jobs[0].has_lived:
            break
    found = Campaign.open(campaign.store.uri)

    (job,) = found.status().jobs
    (row,) = found.cost().to_dicts()
    assert (job.order, job.platform, job.machine, job.workers) == (row["order"], "local", "no GPU", 1)
    assert job.order == next(iter(campaign.journal.read().orders))
    assert row["billed_s"] > 0


def test_after_its_end(campaign):
    """Complete, rows in item order, nothing quarantined, and every billed second in one class."""
    for _ in campaign.run(POLICY, tick_s=0.1):
        pass
    collect(campaign.store, campaign.plan)
    found = Campaign.open(campaign.store.uri)

    status = found.status()
    assert (status.items_done, status.is_complete, status.closed) == (40, True, "every item is settled")
    rows = found.outputs().select("item", "value").collect()
    assert rows.rows() == [(f"item-{number}", value_of(f"item-{number}")) for number in range(40)]
    assert found.outputs().filter(pl.col("item") == "item-7").select(pl.len()).collect().item() == 1
    assert found.quarantine().collect().columns == ["item_index", "item", "cause", "detail", "attempts"]
    (job,) = found.cost().to_dicts()
    assert (job["status"], job["items"], job["usd"]) == ("succeeded", 40, 0.0)
    by_class = found.cost_by_class()
    assert by_class["class"].to_list() == list(CLASSES)
    assert by_class["seconds"].sum() == pytest.approx(job["billed_s"], abs=0.01)
    assert by_class["share"].sum() == pytest.approx(1)
    assert by_class.filter(pl.col("class") == "useful")["seconds"].item() > 0


def test_there_is_no_campaign():
    """A wrong place is told, not made."""
    with pytest.raises(CampaignError, match="there is no campaign at"):
        Campaign.open("no-such-folder/no-such-campaign")
