"""The reaper's flow: what it ends, what it says, and which states it puts right."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.states import Cancelled, Cancelling, Crashed
from pydantic import ValidationError

from flows.reap_orphans import ReapOrphans, reap_orphans
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.journal import Closed
from tasks.flow_runs import last_heartbeat
from tests.flows.prefect_records import artifacts_of, events_of
from tests.flows.real_prefect import gpu_workers, wait_for

PREFECTS_WORDS = "Flow run was cancelled successfully."
SAID = "all GPU jobs have ended"


@pytest.fixture
def reap(prefect_api, tmp_path):
    def reaped(**asked):
        return reap_orphans(ReapOrphans(store_root=str(tmp_path / "store"), **asked), return_state=True)

    return reaped


def state_of(run):
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id).state


def set_state(run, state):
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, state, force=True)


def close_as_if_stopped_in_vain(campaign, run):
    journal = campaign.journal
    at = datetime.now(UTC) - timedelta(minutes=5)
    assert journal.append(Closed(reason="stopped in vain", owner=str(run.id), at=at), upon=journal.read())


def test_an_orphan_is_ended_shown_and_told(reap, lose):
    """A dry run only shows it; then it is ended, stands in the table with its reason, and makes an event."""
    run, campaign = lose("orphaned")
    close_as_if_stopped_in_vain(campaign, run)
    (order,) = campaign.journal.read().orders

    dry = reap(dry_run=True)
    assert dry.message == "1 orphans found, none ended: a dry run, cost $0.00"
    state = reap()

    assert (state.is_completed(), state.message) == (True, "1 orphans found, 1 ended, cost $0.00")
    (table,) = [each for each in artifacts_of(state) if each.key == "orphans"]
    assert order in table.data
    assert "its campaign is closed: stopped in vain" in table.data
    assert reap().message == "no orphans"
    assert [event.payload["why"] for event in events_of(state, "fanfold.orphan.ended")] == [
        "its campaign is closed: stopped in vain"
    ]


def test_without_orphans_it_says_so(reap, lose):
    """A campaign whose flow run is Running is nobody's orphan."""
    _, campaign = lose("at-work")

    assert reap().message == "no orphans"

    assert campaign.journal.read().closed is None


@pytest.mark.parametrize("over", [Crashed(message="no heartbeat"), Cancelled(message="by hand")])
def test_a_campaign_whose_flow_run_is_over_is_stopped(reap, lose, over):
    """The hook never ran: GPU workers are stopped, the campaign is closed, and the state tells."""
    run, campaign = lose("swept")
    set_state(run, over)

    reap()

    journal = campaign.journal.read()
    assert journal.closed.reason == f"flow run {over.name.lower()}, found by the reaper"
    assert not journal.live_orders
    state = state_of(run)
    assert state.type == over.type
    assert state.message.startswith(f"{over.message}; {SAID}")


def test_a_flow_run_that_stays_cancelling_is_stopped_and_called_cancelled(reap, lose):
    """Not before its time is up: a living Prefect worker may be at it."""
    run, campaign = lose("stuck")
    set_state(run, Cancelling())

    reap(cancelling_minutes=5)
    assert state_of(run).name == "Cancelling"
    reap(cancelling_minutes=0.001)

    state = state_of(run)
    assert state.is_cancelled()
    assert state.message.startswith(f"cancelled without its Prefect worker; {SAID}")
    assert not campaign.journal.read().live_orders


def test_a_flow_run_whose_heartbeats_have_stopped_is_crashed(reap, lose):
    """One that never gave any is left alone: heartbeats may be switched off. Nor is one lost between two of them."""
    run, campaign = lose("silent")
    reap(silent_minutes=0.0001)
    assert state_of(run).is_running()

    emit_event("prefect.flow-run.heartbeat", resource={"prefect.resource.id": f"prefect.flow-run.{run.id}"})
    with get_client(sync_client=True) as client:
        wait_for(lambda: last_heartbeat(client, run.id), 30, "the heartbeat arrives")
    reap()
    assert state_of(run).is_running()
    reap(silent_minutes=0.0001)

    state = state_of(run)
    assert state.is_crashed()
    assert state.message.startswith("no heartbeat since ")
    assert SAID in state.message
    assert not campaign.journal.read().live_orders


def test_what_prefect_has_written_over_is_said_again(reap, lose):
    """Prefect's own last words of a cancelled flow run say nothing of GPU jobs."""
    run, campaign = lose("cancelled")
    campaign.stop("interrupted by TerminationSignal", owner=str(run.id))
    set_state(run, Cancelled(message=PREFECTS_WORDS))

    for _ in range(2):
        reap()

    assert state_of(run).message.startswith(f"{PREFECTS_WORDS}; {SAID}")
    assert state_of(run).message.count(SAID) == 1


def test_a_lost_flow_run_whose_gpu_workers_have_left_by_themselves_is_told_too(reap, lose):
    """Nothing is there to stop any more, but the campaign is closed and the state says how far it is."""
    run, campaign = lose("left-alone")
    root = Path(campaign.store.uri).parent
    for worker in gpu_workers(root):
        worker.kill()
    wait_for(lambda: not gpu_workers(root), 10, "they are gone")
    set_state(run, Crashed(message="no heartbeat"))

    reap()

    assert state_of(run).message.startswith(f"no heartbeat; {SAID}; 0 of 40 items are settled")
    assert campaign.journal.read().closed.reason == "flow run crashed, found by the reaper"


def test_flow_runs_of_another_root_are_left_alone(prefect_api, lose, tmp_path):
    """They may be another team's; this reaper may not even have the rights to look."""
    run, campaign = lose("elsewhere")
    set_state(run, Cancelling())

    asked = ReapOrphans(store_root=str(tmp_path / "sto"), cancelling_minutes=0.0001)
    assert reap_orphans(asked, return_state=True).message == "no orphans"

    assert state_of(run).name == "Cancelling"
    assert campaign.journal.read().closed is None


def test_a_lost_flow_run_of_a_deleted_campaign_is_no_alarm(reap, lose):
    """There is nothing to stop, and nothing to say."""
    run, campaign = lose("deleted")
    campaign.stop("test", owner=str(run.id))
    set_state(run, Crashed(message="no heartbeat"))
    shutil.rmtree(campaign.store.uri)

    assert reap().is_completed()
    assert state_of(run).message == "no heartbeat"


def test_an_unreadable_store_is_an_alarm(reap, lose, tmp_path):
    """The flow fails, and ends nothing."""
    run, campaign = lose("damaged")
    entry = tmp_path / "store" / "damaged" / keys.journal(2)
    intact = entry.read_bytes()
    entry.write_text("{")

    state = reap()

    assert state.is_failed()
    assert "the store cannot be read" in state.message
    entry.write_bytes(intact)
    assert campaign.journal.read().closed is None
    assert state_of(run).is_running()


def test_a_platform_that_cannot_be_searched_is_an_alarm_too(reap, monkeypatch):
    """The others are searched all the same."""
    monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    state = reap(platforms=["runpod", "local"])

    assert state.is_failed()
    assert "runpod cannot be searched" in state.message
    assert state.message.endswith("0 orphans found, 0 ended, cost $0.00")


@pytest.mark.parametrize("asked", [{"platforms": []}, {"platforms": ["mars"]}, {"cancelling_minutes": 0}, {"x": 1}])
def test_what_makes_no_sense_is_refused(asked):
    """By the model, so by the form and the API too."""
    with pytest.raises(ValidationError):
        ReapOrphans(**asked)
