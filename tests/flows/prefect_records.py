"""What Prefect's API remembers of a flow run."""

import time
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterName,
)
from prefect.client.schemas.objects import Artifact, State, TaskRun
from prefect.events import Event
from prefect.events.filters import EventFilter, EventNameFilter, EventRelatedFilter


def flow_run_id(state: State) -> UUID:
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id


def task_runs_of(state: State, *, num_expected: int) -> list[TaskRun]:
    """The task runs of a flow run, once that many are recorded as final: Prefect records them late."""
    give_up_at = time.monotonic() + 60
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id(state)]))
    with get_client(sync_client=True) as client:
        while True:
            found = client.read_task_runs(flow_run_filter=wanted)
            final = [run for run in found if run.state and run.state.is_final()]
            if len(final) >= num_expected or time.monotonic() > give_up_at:
                return found
            time.sleep(0.3)


def artifacts_of(state: State) -> list[Artifact]:
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id(state)]))
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=wanted)


def task_runs_of_flow(flow: str, *, name: str) -> list[TaskRun]:
    """Task runs of this name, in any flow run of the flow, once one is recorded as final."""
    give_up_at = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while True:
            found = client.read_task_runs(
                flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
                task_run_filter=TaskRunFilter(name=TaskRunFilterName(any_=[name])),
            )
            if any(run.state and run.state.is_final() for run in found) or time.monotonic() > give_up_at:
                return found
            time.sleep(0.3)


def events_of(state: State, last: str) -> list[Event]:
    """Our events of a flow run, once the one named `last` has arrived: they travel on their own."""
    give_up_at = time.monotonic() + 60
    run = f"prefect.flow-run.{flow_run_id(state)}"
    wanted = EventFilter(event=EventNameFilter(prefix=["fanfold."]), related=EventRelatedFilter(id=[run]))
    with get_client(sync_client=True) as client:
        while True:
            answer = client.request(
                "POST", "/events/filter", json={"filter": wanted.model_dump(mode="json"), "limit": 50}
            )
            found = [Event.model_validate(each) for each in answer.json()["events"]]
            if any(each.event == last for each in found) or time.monotonic() > give_up_at:
                return found
            time.sleep(0.3)
