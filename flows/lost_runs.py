"""Flow runs that nobody looks after any more: their Prefect worker died, or their hook never ran.

Only what is provable is touched: a campaign whose flow run Prefect calls over, and a flow run that has been Cancelling
for longer than any living Prefect worker needs.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.logging import get_run_logger

from flows.stopping import stop_and_tell
from gpu_jobs.platforms.base import Platform
from gpu_jobs.reap import openers
from tasks.flow_runs import PREFECTS_WORDS, campaign_of, find_flow_run, force_cancelled, runs_in, say_in_state

_AMEND_FOR = timedelta(hours=1)


def put_states_right(store_root: str, platforms: Sequence[Platform], patience: timedelta) -> None:
    """Stop the campaigns of lost flow runs, and say so in their states.

    Raises:
        StoreError: the store cannot be read; nothing was stopped.
    """
    owners = openers(store_root, platforms)
    now = datetime.now(UTC)
    with get_client(sync_client=True) as client:
        for uri, opener in owners.items():
            run = find_flow_run(client, opener)
            if run and run.state and run.state.is_final():
                _stop(client, run, uri, because=f"{str(run.state.name).lower()}, found by the reaper")
        for run in runs_in(client, StateType.CANCELLING):
            if run.state and now - run.state.timestamp > patience:
                sentence = _stop(client, run, campaign_of(run), because="cancelled, found by the reaper")
                force_cancelled(
                    client, run.id, f"cancelled without its Prefect worker; {sentence or 'nothing was left'}"
                )
        for run in runs_in(client, StateType.CANCELLED, ended_after=now - _AMEND_FOR):
            if run.state and run.state.message == PREFECTS_WORDS:
                _stop(client, run, campaign_of(run), because="cancelled")


def _stop(client: SyncPrefectClient, run: FlowRun, uri: str, *, because: str) -> str:
    sentence = stop_and_tell(uri, str(run.id), because=because)
    if sentence:
        get_run_logger().info("flow run %s: %s", run.name, sentence)
        say_in_state(client, run.id, sentence)
    return sentence
