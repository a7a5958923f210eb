"""Create what Fanfold needs in a Prefect server: work pool, limits, zombie automation. It can be repeated.

python -m flows.setup --limits '{"modal": 4}'
"""

import sys
from datetime import timedelta
from typing import Any

import httpx
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
"""The tag of all deployments; the zombie automation watches only flow runs with this tag."""
ZOMBIES = "fanfold-zombies"
_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut", "Suspended", "Paused")
"""States after which no heartbeat is expected. Cancelling is not among them: `reap_orphans` handles it."""


class Setup(BaseModel):
    """What to create. What exists already is left as it is, except for limits that are named here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    work_pool: str = Field(default="fanfold", description="Name of the work pool, of the type process")
    limits: dict[str, int] = Field(
        default={}, description="How many flow runs may use a platform at the same time, such as '{\"modal\": 4}'"
    )
    secrets: dict[str, str] = Field(
        default={},
        description="Environment variables of all flow runs and the Prefect Secret blocks that hold their values, such "
        'as \'{"RUNPOD_API_KEY": "runpod-key"}\'; variables that were named earlier stay',
    )
    zombie_after_s: float = Field(
        default=540,
        gt=60,
        description="A flow run without a heartbeat for so many seconds is Crashed; three are expected in that time",
    )


def main(setup: Setup) -> list[str]:
    """Create everything; return lines that say what was created and what existed."""
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
            *_warning_without_password(str(client.api_url)),
        ]


def _warning_without_password(api_url: str) -> list[str]:
    """A warning if the API answers whoever asks: then anybody can start paid runs and read Secret blocks."""
    try:
        is_open = httpx.get(f"{api_url.rstrip('/')}/admin/version", timeout=10.0).is_success
    except httpx.HTTPError:
        is_open = False
    fix = "set PREFECT_SERVER_API_AUTH_STRING there and PREFECT_API_AUTH_STRING here (docs/run-it-for-real.md)"
    return [f"WARNING: {api_url} answers without a password: {fix}"] if is_open else []


def _work_pool(client: SyncPrefectClient, name: str) -> str:
    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        return f"work pool {name}: created, of the type process"
    return f"work pool {name}: exists, of the type {found.type}"


def _secrets(client: SyncPrefectClient, pool: str, secrets: dict[str, str]) -> list[str]:
    """Let Prefect workers read secret blocks at every start; `prefect.yaml` would only copy their values."""
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
        return f"limit {name}: created, {asked or usual} flow runs at the same time"
    if asked is None or asked == there:
        return f"limit {name}: exists, {there} flow runs at the same time"
    client.upsert_global_concurrency_limit_by_name(name, asked)
    return f"limit {name}: changed from {there} to {asked} flow runs at the same time"


def _zombies(client: SyncPrefectClient, after_s: float) -> str:
    """Create the automation that reacts when heartbeats stop; Prefect itself has none."""
    if client.read_automations_by_name(ZOMBIES):
        return f"automation {ZOMBIES}: exists"
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
    return f"automation {ZOMBIES}: created, a flow run without a heartbeat for {duration(after_s)} is Crashed"


def _retention(client: SyncPrefectClient) -> str:
    """Say how long the server keeps flow runs, which only its own environment decides."""
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
