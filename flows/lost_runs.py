"""Find and end lost flow runs: those whose Prefect worker died, or whose hook never ran.

Only what is certain is touched: a campaign whose flow run has ended in Prefect, a flow run that has been Cancelling for
longer than any living Prefect worker needs, and a flow run whose heartbeats have stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Crashed

from flows.stopping import HOW_TO_RESUME, stop_if_owner
from gpu_jobs.campaign.reaper import owners_of
from gpu_jobs.platforms.base import Platform
from gpu_jobs.store import open_store
from tasks.flow_runs import add_to_state_message, campaign_of, find_flow_run, force_state, last_heartbeat, runs_in

_AMEND_FOR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait before a flow run counts as lost."""

    cancelling: timedelta
    silent: timedelta
    """The wait for a flow run that is Running and sends no heartbeats any more."""


def put_states_right(store_root: str, platforms: Sequence[Platform], patience: Patience) -> None:
    """Stop the campaigns under a root whose flow runs are lost, and say so in their states.

    Raises:
        StoreError: the store cannot be read; nothing was stopped.
    """
    owners = owners_of(store_root, platforms)
    with get_client(sync_client=True) as client:
        for uri, owner in owners.items():
            run = find_flow_run(client, owner)
            if run and run.state and run.state.is_final():
                _stop(client, run, uri, because=str(run.state.name).lower())
        _end_stuck(client, store_root, patience.cancelling)
        _end_silent(client, store_root, patience.silent)
        _amend(client, store_root)


def _end_stuck(client: SyncPrefectClient, store_root: str, patience: timedelta) -> None:
    for run, uri in _runs_under(client, store_root, StateType.CANCELLING):
        if run.state and datetime.now(UTC) - run.state.timestamp > patience:
            sentence = _stop(client, run, uri, because="cancelled") or "no GPU job was left to stop"
            force_state(client, run.id, Cancelled(message=f"cancelled without its Prefect worker; {sentence}"))


def _end_silent(client: SyncPrefectClient, store_root: str, patience: timedelta) -> None:
    """Do what the zombie automation does, since that can fail on a server with SQLite."""
    for run, uri in _runs_under(client, store_root, StateType.RUNNING):
        beat_at = last_heartbeat(client, run.id)
        if beat_at and datetime.now(UTC) - beat_at > patience:
            message = f"no heartbeat since {beat_at:%Y-%m-%d %H:%M} UTC: its process is gone"
            force_state(client, run.id, Crashed(message=message))
            _stop(client, run, uri, because="crashed")


def _amend(client: SyncPrefectClient, store_root: str) -> None:
    """Add what became of the campaign to the states of flow runs whose hook never ran or was overwritten by Prefect."""
    for kind in (StateType.CANCELLED, StateType.CRASHED):
        for run, uri in _runs_under(client, store_root, kind, ended_after=datetime.now(UTC) - _AMEND_FOR):
            if run.state and HOW_TO_RESUME not in (run.state.message or ""):
                _stop(client, run, uri, because=kind.value.lower())


def _runs_under(
    client: SyncPrefectClient, store_root: str, state: StateType, *, ended_after: datetime | None = None
) -> Iterator[tuple[FlowRun, str]]:
    """Yield the flow runs in a state whose campaigns are under the root, with these campaigns."""
    root = open_store(store_root).uri
    for run in runs_in(client, state, ended_after=ended_after):
        if (uri := campaign_of(run)).startswith(f"{root}/"):
            yield run, uri


def _stop(client: SyncPrefectClient, run: FlowRun, uri: str, *, because: str) -> str:
    sentence = stop_if_owner(uri, str(run.id), because=f"{because}, found by the reaper")
    if sentence:
        get_run_logger().info("flow run %s: %s", run.name, sentence)
        add_to_state_message(client, run.id, sentence)
    return sentence
