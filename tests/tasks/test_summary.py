"""The outcome's Markdown page: links where a browser can follow them, tables that stay tables."""

import pytest

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.testing import MemoryStore, plan_campaign
from tasks.summary import link, summary, table


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("gs://b/runs/x", "https://console.cloud.google.com/storage/browser/b/runs/x"),
        ("gs://b/runs/x/report.html", "https://storage.cloud.google.com/b/runs/x/report.html"),
        ("gs://b/outputs/part-0.parquet", "https://storage.cloud.google.com/b/outputs/part-0.parquet"),
    ],
)
def test_a_place_in_a_bucket_is_a_link_to_what_shows_it(uri, address):
    assert link(uri) == f"[{uri}]({address})"


def test_a_folder_is_no_link():
    assert link("/data/runs/x") == "`/data/runs/x`"


def test_no_cell_breaks_its_table():
    """Whatever users call their datasets."""
    lines = table(("name", "items"), [("a|b", "1")])

    assert [line.count("|") for line in lines] == [3, 3, 3]


def test_a_campaign_of_which_nothing_is_done_is_called_partial_and_costs_nothing():
    store = MemoryStore()
    plan = plan_campaign(store)
    campaign = Campaign(store, plan)

    page = summary(store.uri, campaign.snapshot(), collect(store, plan), None, "stopped by hand")

    facts = dict(line.strip("| ").split(" | ") for line in page.splitlines() if line.count("|") == 3)
    assert page.startswith("**stopped by hand**")
    assert (facts["committed"], facts["open"], facts["report"]) == ("0", f"{plan.num_items}", "not written")
    assert "a partial result" in page
    assert "Cost and waste" not in page
