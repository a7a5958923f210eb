"""Campaigns as flows, on real GPU worker processes of this machine."""

import contextvars
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

import flows.campaign
from flows.display import Display
from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.manifest import newest_manifest, read_output
from gpu_jobs.errors import CampaignClosedError, RefusedError, SupersededError
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.open_chunks import Survey
from gpu_jobs.store.local import LocalStore
from tests.flows.prefect_records import artifacts_of, events_of, task_runs_of
from tests.flows.small_flows import GatedCampaign, NoopCampaign, UnknownCampaign

TASKS_BESIDE_JOBS = 3
"""split, collect, report."""


def test_a_campaign_completes_with_one_task_run_per_gpu_job(start):
    """Two GPU workers do 16 chunks; Prefect sees one GPU job, three artifacts, the counts and three events."""
    state = start(max_workers=2)

    assert state.message == "every item is settled: 40 committed, 0 quarantined"
    summary = state.result()
    assert (summary.num_items, summary.num_committed, summary.num_quarantined, summary.num_open) == (40, 40, 0, 0)
    campaign = Campaign.open(summary.campaign)
    assert campaign.store.get(summary.manifest) is not None
    assert len(campaign.plan.chunk_boundaries) - 1 == 16
    orders = list(campaign.journal.read().orders)
    runs = task_runs_of(state, num_expected=len(orders) + TASKS_BESIDE_JOBS)
    assert sorted(run.name for run in runs if run.name.startswith("ff-")) == sorted(orders)
    assert len(runs) == len(orders) + TASKS_BESIDE_JOBS
    name = summary.campaign.rpartition("/")[2]
    found = {artifact.key: artifact for artifact in artifacts_of(state)}
    assert set(found) == {f"{name}-progress", f"{name}-gpu-jobs", f"{name}-summary"}
    assert found[f"{name}-progress"].data == 100
    page = found[f"{name}-summary"].data
    assert "| committed | 40 |" in page
    assert "| working on items |" in page
    assert "(data:image/svg+xml;base64," in page
    events = events_of(state, "fanfold.campaign.closed")
    assert sorted(each.event.removeprefix("fanfold.") for each in events) == [
        "campaign.closed",
        "gpu_job.ended",
        "gpu_job.started",
    ]
    assert {each.resource.id for each in events} == {f"fanfold.campaign.{name}"}
    (row,) = json.loads(found[f"{name}-gpu-jobs"].data)
    assert (row["GPU job"], row["platform"], row["items"], row["status"]) == (orders[0], "local", 40, "succeeded")


def test_a_complete_campaign_has_nothing_to_do(start):
    """Started again, the flow says so, starts no GPU job and publishes nothing new."""
    first = start().result()

    again = start()

    assert again.message == "nothing to do: all 40 items were already settled: 40 committed, 0 quarantined"
    assert again.result() == first
    assert len(Campaign.open(first.campaign).journal.read().orders) == 1


def test_the_end_of_a_flow_reads_heartbeats_and_chunks_once(start, monkeypatch):
    """Outputs, report, score and summary are computed from one snapshot."""
    reads = Counter()
    listed, surveyed, published = LocalStore.list, Survey.refresh_all, flows.campaign._publish

    def counted_list(store, prefix, after=""):
        reads[prefix] += 1
        return listed(store, prefix, after)

    def counted_survey(survey):
        reads["survey"] += 1
        surveyed(survey)

    def from_here_on(*arguments):
        reads.clear()
        return published(*arguments)

    monkeypatch.setattr(LocalStore, "list", counted_list)
    monkeypatch.setattr(Survey, "refresh_all", counted_survey)
    monkeypatch.setattr(flows.campaign, "_publish", from_here_on)

    assert start().is_completed()

    assert (reads[keys.WORKERS], reads["survey"]) == (1, 1)


def test_a_failed_gpu_job_fails_its_task_run_only(start, tmp_path):
    """The first GPU job cannot set its model up, the second can: the flow completes and shows the failure."""
    params = {"gate": str(tmp_path / "gate"), "opens_gate": True}

    state = start(GatedCampaign, params=params, max_workers=1)

    assert state.is_completed(), state.message
    runs = task_runs_of(state, num_expected=2 + TASKS_BESIDE_JOBS)
    ends = {run.name: run.state for run in runs if run.name.startswith("ff-")}
    assert sorted(end.name for end in ends.values()) == ["Completed", "Failed"]
    assert any("the gate is closed" in end.message for end in ends.values())


def test_a_campaign_that_is_closed_early_fails_and_can_be_resumed(start, tmp_path):
    """The flow fails with the closing reason, publishes what there is, and the next one completes."""
    asked = {"params": {"gate": str(tmp_path / "gate")}, "name": "gated", "max_workers": 1, "max_idle_jobs": 1}

    state = start(GatedCampaign, **asked)

    assert state.is_failed()
    assert "1 GPU jobs in a row got nothing done" in state.message
    assert "start the flow again" in state.message
    with pytest.raises(CampaignClosedError):
        state.result()
    campaign = Campaign.open(str(tmp_path / "store" / "gated"))
    assert newest_manifest(campaign.store).num_open == 40

    (tmp_path / "gate").touch()
    resumed = start(GatedCampaign, **asked)

    assert resumed.result().num_committed == 40
    (file,) = newest_manifest(campaign.store).outputs
    assert read_output(campaign.store, file)["item_index"].to_list() == list(range(40))


def test_the_older_of_two_flow_runs_gives_way(start, tmp_path):
    """The newer one takes GPU workers and work over; the older ends as cancelled and says by whom."""
    asked = {"params": {"sleep_s": 0.3}, "name": "contested"}
    journal_entry = tmp_path / "store" / "contested" / "journal" / "00000002.json"
    with ThreadPoolExecutor(1) as pool:
        older = pool.submit(contextvars.copy_context().run, start, **asked)
        while not journal_entry.exists():
            time.sleep(0.05)

        newer = start(**asked)

    assert newer.message == "every item is settled: 40 committed, 0 quarantined"
    assert older.result().is_cancelled()
    assert "another flow run took over" in older.result().message
    with pytest.raises(SupersededError):
        older.result().result()


def test_an_interrupt_anywhere_in_the_flow_stops_its_gpu_jobs(start, tmp_path, monkeypatch):
    """Also outside of the campaign's own loop: it is closed with the reason, and no GPU worker is left."""

    def interrupt(display, progress, **_):
        if any(job.workers_alive for job in progress.jobs):
            raise KeyboardInterrupt

    monkeypatch.setattr(Display, "show", interrupt)
    with pytest.raises(KeyboardInterrupt):
        start(params={"sleep_s": 1}, name="interrupted")

    journal = Campaign.open(str(tmp_path / "store" / "interrupted")).journal.read()
    assert journal.closed.reason == "interrupted by KeyboardInterrupt"
    assert not journal.live_orders


def test_nothing_new_is_a_success(start):
    """With `only_new`, a flow over items that a campaign of another date has committed completes without one."""
    start(name="nightly-2020-01-01")

    state = start(name="nightly-{date}", only_new=True)

    assert (state.is_completed(), state.message) == (True, "no new items")
    assert state.result().campaign == ""


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("budget_usd", {"budget_usd": -1}),
        ("deadline", {"deadline": "2020-01-01T00:00:00"}),
        ("max_workers", {"max_workers": 0}),
        ("chunk_weight", {"chunk_weight": 0}),
        ("store_root", {"platforms": ["modal"]}),
        ("dataset", {"platforms": ["modal"], "store_root": "gs://bucket/prefix"}),
        ("dataset", {"dataset": "no-such-file.csv"}),
        ("name", {"name": "Not A Name"}),
    ],
)
def test_what_cannot_work_is_refused(start, tmp_path, caplog, field, asked):
    """The flow fails at once with the field and the problem in one sentence, no traceback; nothing was written."""
    state = start(**asked)

    assert state.is_failed()
    assert state.message.startswith(f"refused: {field}: ")
    with pytest.raises(RefusedError) as refusal:
        state.result()
    assert refusal.value.field == field
    assert "Traceback" not in caplog.text
    assert not (tmp_path / "store").exists()


def test_an_unknown_workload_is_refused(start):
    """A workload that is neither built in nor `package.module:Class` is refused by name."""
    assert "refused: workload: 'no-such' is unknown" in start(UnknownCampaign).message


def test_an_empty_dataset_and_repeated_ids_are_refused(start, write_items, tmp_path):
    """Neither begins a campaign."""
    empty = start(dataset=write_items(name="empty"))
    twice = start(dataset=write_items("a", "b", "a", name="twice"))

    assert "refused: dataset: " in empty.message
    assert "has no inputs" in empty.message
    assert "refused: dataset: the id 'a' occurs twice" in twice.message
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("field", "asked", "difference"),
    [
        ("workload", {"model": GatedCampaign}, "has workload 'noop', not 'tests.flows.small_flows:Gated'"),
        ("params", {"params": {"rows_per_item": 2}}, "has rows_per_item=1, not 2"),
        ("dataset", {"dataset": "others"}, "1 added"),
    ],
)
def test_a_name_belongs_to_one_campaign(start, write_items, field, asked, difference):
    """Another workload, parameters or dataset under the same name is refused, and the difference is told."""
    start(name="taken")
    if "dataset" in asked:
        asked = {"dataset": write_items(*(f"item-{number}" for number in range(41)), name=asked["dataset"])}

    state = start(**{"model": NoopCampaign, "name": "taken", **asked})

    assert state.message.startswith(f"refused: {field}: ")
    assert difference in state.message
