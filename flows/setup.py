"""Make what Fanfold needs in a Prefect server: a work pool, limits per platform, an end to zombies. May be repeated.

python -m flows.setup --limits '{"modal": 4}'
"""

import sys
from datetime import timedelta
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.events import AutomationCore, EventTrigger, Posture
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker
from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import CliApp

from gpu_jobs.durations import duration
from gpu_jobs.platforms import known_platforms
from tasks.flow_runs import limit_name

TAG = "fanfold"
"""On all deployments; the zombie automation looks after flow runs that carry it, and no others."""
ZOMBIES = "fanfold-zombies"
_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut", "Suspended", "Paused")
"""States after which no heartbeat is due. Cancelling is none of ours here: `reap_orphans` sees to it."""


class Setup(BaseModel):
    """What is made; whatever exists already is left as it is, but for limits that are named here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    work_pool: str = Field(default="fanfold", description="Work pool of the type process")
    limits: dict[str, int] = Field(
        default={}, description="Flow runs that may use a platform at once, such as '{\"modal\": 4}'"
    )
    secrets: dict[str, str] = Field(
        default={},
        description="Environment variables of all flow runs and the Prefect Secret blocks that hold their values, such "
        'as \'{"RUNPOD_API_KEY": "runpod-key"}\'; those named before stay',
    )
    zombie_after_s: float = Field(
        default=540, gt=60, description="A flow run without a heartbeat for this long is Crashed; three are due by then"
    )


def main(setup: Setup) -> list[str]:
    """Make all of it; tell what was made and what was there."""
    with get_client(sync_client=True) as client:
        return [
            _work_pool(client, setup.work_pool),
            *_secrets(client, setup.work_pool, setup.secrets),
            *(
                _limit(client, limit_name(row.name), setup.limits.get(row.name), row.max_flow_runs)
                for row in known_platforms().values()
            ),
            _zombies(client, setup.zombie_after_s),
            _retention(client),
        ]


def _work_pool(client: SyncPrefectClient, name: str) -> str:
    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        return f"work pool {name}: made, of the type process"
    return f"work pool {name}: there, of the type {found.type}"


def _secrets(client: SyncPrefectClient, pool: str, secrets: dict[str, str]) -> list[str]:
    """Have Prefect workers read blocks at each start. In `prefect.yaml` the same words copy the value at deployment."""
    if not secrets:
        return []
    template = client.read_work_pool(pool).base_job_template
    environment = template["variables"]["properties"]["env"]
    added = {variable: f"{{{{ prefect.blocks.secret.{block} }}}}" for variable, block in secrets.items()}
    environment["default"] = {**environment.get("default", {}), **added}
    client.update_work_pool(pool, WorkPoolUpdate(base_job_template=template))
    return [f"secret {variable}: from the block {block}" for variable, block in secrets.items()]


def _limit(client: SyncPrefectClient, name: str, asked: int | None, usual: int) -> str:
    try:
        there = client.read_global_concurrency_limit_by_name(name).limit
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=asked or usual))
        return f"limit {name}: made, {asked or usual} flow runs at once"
    if asked is None or asked == there:
        return f"limit {name}: there, {there} flow runs at once"
    client.upsert_global_concurrency_limit_by_name(name, asked)
    return f"limit {name}: changed from {there} to {asked} flow runs at once"


def _zombies(client: SyncPrefectClient, after_s: float) -> str:
    """Nothing in Prefect acts on heartbeats that stop, until somebody makes this."""
    if client.read_automations_by_name(ZOMBIES):
        return f"automation {ZOMBIES}: there"
    trigger = EventTrigger(
        after={_HEARTBEAT},
        expect={_HEARTBEAT, *(f"prefect.flow-run.{end}" for end in _ENDS)},
        match=ResourceSpecification.model_validate({"prefect.resource.id": ["prefect.flow-run.*"]}),
        match_related=ResourceSpecification.model_validate(
            {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
        ),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=after_s),
    )
    crash = ChangeFlowRunState(
        state=StateType.CRASHED, message=f"no heartbeat for {duration(after_s)}: its process is gone"
    )
    client.create_automation(AutomationCore(name=ZOMBIES, trigger=trigger, actions=[crash]))
    return f"automation {ZOMBIES}: made, a flow run without a heartbeat for {duration(after_s)} is Crashed"


def _retention(client: SyncPrefectClient) -> str:
    """Only the server's environment decides it; say what it decides."""
    services = client.request("GET", "/admin/settings").json()["server"]["services"]
    vacuum: dict[str, Any] = services["db_vacuum"]
    if vacuum["enabled"] is True or "flow_runs" in (vacuum["enabled"] or ()):
        return f"history: flow runs older than {vacuum['retention_period']} are deleted"
    return (
        "history: flow runs are kept for ever; start the server with "
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED=events,flow_runs to delete those older than 90 days"
    )


if __name__ == "__main__":
    for line in main(CliApp.run(Setup)):
        sys.stdout.write(f"{line}\n")
