"""How a flow run that is interrupted ends, and what its state says."""

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelling

from flows.campaign import CampaignSummary, run_campaign
from flows.display import Display
from flows.stopping import campaign_flow, stop_campaign, stop_if_owner
from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger.journal import CloseCause
from tasks.flow_runs import campaign_of
from tests.flows.prefect_records import flow_run_id
from tests.flows.real_prefect import gpu_workers
from tests.flows.small_flows import NoopCampaign, in_sections, small

POLICY = Policy(max_workers=1)
SAID = "all GPU jobs have ended"


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "store"


def newest_run(flow: str) -> FlowRun:
    with get_client(sync_client=True) as client:
        (found,) = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])), sort=FlowRunSort.START_TIME_DESC, limit=1
        )
    return found


def journal(store: Path, name: str):
    return Campaign.open(str(store / name)).journal.read()


def test_a_flow_run_that_times_out_stops_its_gpu_jobs_and_says_so(prefect_api, items, store):
    """It ends as TimedOut; the campaign is closed, nothing of it runs, and the message says how to go on."""

    @campaign_flow("brief", timeout_seconds=7)
    def brief(campaign: NoopCampaign) -> CampaignSummary:
        return run_campaign(campaign)

    asked = in_sections(dataset=items, store_root=str(store), name="brief", params={"sleep_s": 1})
    state = brief(NoopCampaign(**asked), return_state=True)

    assert state.name == "TimedOut"
    ended = journal(store, "brief")
    assert ended.closed.cause is CloseCause.INTERRUPTED
    assert ended.closed.reason == "interrupted by CancelledError"  # Prefect's alarm
    assert ended.orders
    assert not ended.live_orders
    message = newest_run("brief").state.message
    assert message.startswith("Flow run exceeded timeout of 7")
    assert SAID in message
    assert "of 40 items are settled" in message
    assert "to resume" in message


def test_an_interrupted_flow_run_is_crashed_and_says_so(start, store, monkeypatch):
    """Ctrl-C in a terminal: the state in Prefect tells that nothing runs any more."""

    def interrupt(display, progress, **_):
        if any(job.workers_alive for job in progress.jobs):
            raise KeyboardInterrupt

    monkeypatch.setattr(Display, "show", interrupt)
    with pytest.raises(KeyboardInterrupt):
        start(params={"sleep_s": 1}, name="interrupted")

    run = newest_run("small")
    assert run.state.is_crashed()
    assert SAID in run.state.message
    assert campaign_of(run) == str(store / "interrupted")
    assert journal(store, "interrupted").opened.owner == str(run.id)
    assert not journal(store, "interrupted").live_orders


def test_ends_that_speak_for_themselves_are_left_as_they_are(start, store):
    """A refusal, a campaign that closes itself: their messages get no addition."""
    refused = start(name="Not A Name")
    closed = start(name="over", deadline="2999-01-01", max_idle_jobs=1, max_attempts=1, params={"rows_per_item": 1})

    with get_client(sync_client=True) as client:
        for state in (refused, closed):
            run = client.read_flow_run(flow_run_id(state))
            stop_campaign(small, run, run.state)
            assert client.read_flow_run(run.id).state.message == state.message


def test_the_hook_finds_the_campaign_of_a_dead_process_by_the_flow_runs_label(lose):
    """It runs in another process, knows only the flow run, stops what lives and may be run again."""
    run, campaign = lose("lost")

    for _ in range(2):
        stop_campaign(small, run, Cancelling())

    ended = campaign.journal.read()
    assert ended.closed.cause is CloseCause.STOPPED
    assert ended.closed.reason == "flow run cancelled"
    assert not ended.live_orders
    assert alive(campaign) == []


def test_a_campaign_that_another_flow_run_has_opened_is_left_alone(lose):
    """The sweep of the older flow run says nothing and stops nothing."""
    run, campaign = lose("taken-over")
    turns = campaign.run(POLICY, owner="somebody-else")
    next(turns)

    assert stop_if_owner(campaign.store.uri, str(run.id), because="cancelled") == ""

    assert campaign.journal.read().closed is None
    assert alive(campaign)
    turns.close()


def test_gpu_jobs_that_are_not_seen_to_end_are_named(lose, monkeypatch):
    """Then the sentence is no promise: it says which, and who will try again."""
    run, campaign = lose("deaf")
    monkeypatch.setattr(Campaign, "stop", lambda *_, **__: ["ff-1", "ff-2"])

    sentence = stop_if_owner(campaign.store.uri, str(run.id), because="crashed")

    assert sentence.startswith("end NOT confirmed: ff-1, ff-2; reap-orphans will try again; ")
    monkeypatch.undo()
    campaign.stop("test", owner=str(run.id))


def alive(campaign: Campaign) -> list[int]:
    """Pids of the campaign's GPU workers."""
    root = Path(campaign.store.uri).parent
    return [worker.pid for worker in gpu_workers(root) if campaign.store.uri in worker.cmdline()]
