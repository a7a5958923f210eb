"""Flow runs that nobody looks after any more: their Prefect worker died, or their hook never ran.

Only what is provable is touched: a campaign whose flow run Prefect calls over, a flow run that has been Cancelling for
longer than any living Prefect worker needs, and one whose heartbeats have stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Crashed

from flows.stopping import HOW_TO_RESUME, stop_and_tell
from gpu_jobs.campaign.reaper import owners_of
from gpu_jobs.platforms.base import Platform
from gpu_jobs.store import open_store
from tasks.flow_runs import campaign_of, find_flow_run, force_state, last_heartbeat, runs_in, say_in_state

_AMEND_FOR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """After how long a flow run is lost."""

    cancelling: timedelta
    silent: timedelta
    """Running, with heartbeats that have stopped."""


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
            sentence = _stop(client, run, uri, because="cancelled") or "nothing of it was left to stop"
            force_state(client, run.id, Cancelled(message=f"cancelled without its Prefect worker; {sentence}"))


def _end_silent(client: SyncPrefectClient, store_root: str, patience: timedelta) -> None:
    """As the zombie automation does, which a server on SQLite may miss."""
    for run, uri in _runs_under(client, store_root, StateType.RUNNING):
        beat_at = last_heartbeat(client, run.id)
        if beat_at and datetime.now(UTC) - beat_at > patience:
            said = f"no heartbeat since {beat_at:%Y-%m-%d %H:%M} UTC: its process is gone"
            force_state(client, run.id, Crashed(message=said))
            _stop(client, run, uri, because="crashed")


def _amend(client: SyncPrefectClient, store_root: str) -> None:
    """Say what became of flow runs whose hook never ran, or whose words Prefect wrote over."""
    for kind in (StateType.CANCELLED, StateType.CRASHED):
        for run, uri in _runs_under(client, store_root, kind, ended_after=datetime.now(UTC) - _AMEND_FOR):
            if run.state and HOW_TO_RESUME not in (run.state.message or ""):
                _stop(client, run, uri, because=kind.value.lower())


def _runs_under(
    client: SyncPrefectClient, store_root: str, state: StateType, *, ended_after: datetime | None = None
) -> Iterator[tuple[FlowRun, str]]:
    """Flow runs in a state, with their campaigns, as far as those are under the root."""
    root = open_store(store_root).uri
    for run in runs_in(client, state, ended_after=ended_after):
        if (uri := campaign_of(run)).startswith(f"{root}/"):
            yield run, uri


def _stop(client: SyncPrefectClient, run: FlowRun, uri: str, *, because: str) -> str:
    sentence = stop_and_tell(uri, str(run.id), because=f"{because}, found by the reaper")
    if sentence:
        get_run_logger().info("flow run %s: %s", run.name, sentence)
        say_in_state(client, run.id, sentence)
    return sentence
