"""Read and change flow runs in Prefect, also from other processes: their campaigns, states and limits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext
from prefect.events.filters import EventFilter, EventNameFilter, EventOrder, EventResourceFilter
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run

from gpu_jobs.campaign.campaign import Campaign

CAMPAIGN_LABEL = "fanfold.campaign"
"""The label of a flow run that holds the address of its campaign, which it has opened or is about to open."""
_PAGE = 200
_LEASE_S = 60


def label_flow_run(campaign: Campaign) -> None:
    """Label this flow run with the campaign that it is about to open, so that others can find and stop the campaign."""
    if flow_run.id:
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(UUID(flow_run.id), {CAMPAIGN_LABEL: campaign.store.uri})


def campaign_of(run: FlowRun) -> str:
    """Return the address of a flow run's campaign; "" if it has none."""
    return str(run.labels.get(CAMPAIGN_LABEL, ""))


def limit_name(platform: str) -> str:
    """Return the name of Prefect's global concurrency limit on flow runs that use a platform at the same time."""
    return f"fanfold-{platform}"


@contextmanager
def platform_slots(platforms: Sequence[str]) -> Iterator[None]:
    """Hold one slot of each platform's limit. Only flow runs of deployments wait for slots.

    Raises:
        ConcurrencySlotAcquisitionError: a limit does not exist; `python -m flows.setup` creates them.
    """
    if not deployment.id:
        yield
        return
    names = sorted({limit_name(platform) for platform in platforms})
    get_run_logger().info("waiting for a free slot of the limit %s", ", ".join(names))
    # A killed flow run's slots become free after `lease_duration`. Losing a slot is no reason to stop the flow run.
    with concurrency(names, strict=True, lease_duration=_LEASE_S, raise_on_lease_renewal_failure=False):
        yield


def leave_if_suspended() -> None:
    """Raise Prefect's own signal if this flow run was suspended: it ends here, and starts again when it is resumed."""
    if context := FlowRunContext.get():
        context.flow_run_suspension_request.raise_if_requested()


def find_flow_run(client: SyncPrefectClient, owner: str) -> FlowRun | None:
    """Return the flow run that opened a campaign; None if no flow run of this server did."""
    try:
        return client.read_flow_run(UUID(owner))
    except (ValueError, ObjectNotFound):
        return None


def runs_in(client: SyncPrefectClient, state: StateType, *, ended_after: datetime | None = None) -> list[FlowRun]:
    """Return all flow runs that have a campaign and are in a state."""
    found: list[FlowRun] = []
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state])),
        end_time=FlowRunFilterEndTime(after_=ended_after) if ended_after else None,
    )
    while page := client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE, offset=len(found)):
        found += page
    return [run for run in found if campaign_of(run)]


def last_heartbeat(client: SyncPrefectClient, run_id: UUID) -> datetime | None:
    """Return when a flow run last sent a heartbeat to Prefect; None if it never did, which proves nothing."""
    wanted = EventFilter(
        event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run_id}"]),
        order=EventOrder.DESC,
    )
    asked = {"filter": wanted.model_dump(mode="json"), "limit": 1}
    found = client.request("POST", "/events/filter", json=asked).json()["events"]
    return datetime.fromisoformat(found[0]["occurred"]) if found else None


def add_to_state_message(client: SyncPrefectClient, run_id: UUID, sentence: str) -> None:
    """Add a sentence to the message of a flow run's last state."""
    state = client.read_flow_run(run_id).state
    if state is None or not state.is_final() or sentence in (state.message or ""):
        return
    amended = State(type=state.type, name=state.name, message=f"{state.message}; {sentence}", data=state.data)
    client.set_flow_run_state(run_id, amended, force=True)


def force_state(client: SyncPrefectClient, run_id: UUID, state: State) -> None:
    """Set the state of a flow run, even if Prefect's rules do not allow it."""
    client.set_flow_run_state(run_id, state, force=True)


def show_stopped(client: SyncPrefectClient, run_id: UUID, campaign: str, sentence: str) -> None:
    """Show the sentence on the flow run's page too, since Prefect overwrites the message of a cancelled flow run."""
    name = campaign.rpartition("/")[2]
    artifact = ArtifactCreate(
        key=f"{name}-stopped",
        type="markdown",
        data=sentence,
        description=f"How {name} was stopped",
        flow_run_id=run_id,
    )
    try:
        client.create_artifact(artifact)
    except httpx.HTTPError as error:
        get_run_logger().warning("Prefect rejected the artifact 'stopped': %s", error)
