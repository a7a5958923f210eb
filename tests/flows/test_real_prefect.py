"""All deployments on a real server with a real process worker."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect.blocks.system import Secret
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.deployments import run_deployment

from tests.flows.real_prefect import POOL, Prefect, wait_for

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]
DEPLOYED = {"video-analysis", "batch-inference", "fine-tuning", "compare-platforms", "reap-orphans"}


def test_setup_may_be_repeated(served: Prefect):
    """The second time it finds everything there and changes nothing but a limit that is named."""
    again = served.run("flows.setup")

    assert "made" not in again
    assert f"work pool {POOL}: exists" in again
    assert "limit fanfold-local: exists, 2 flow runs at the same time" in again
    assert "automation fanfold-zombies: exists" in again
    assert "history: flow runs are kept for ever" in again
    changed = served.run("flows.setup", "--limits", '{"local": 3}')
    assert "limit fanfold-local: changed from 2 to 3" in changed
    served.run("flows.setup", "--limits", '{"local": 2}')


def test_a_secret_comes_from_a_block_and_stands_nowhere_else(served: Prefect, slowly):
    """Flow runs have it in their environment; pool, deployment and flow run only name the block."""
    secret = "canary-51cc0e9b77"
    Secret(value=secret).save("fanfold-canary", overwrite=True)
    said = served.run("flows.setup", "--secrets", '{"RUNPOD_API_KEY": "fanfold-canary"}')
    assert "secret RUNPOD_API_KEY: from the block fanfold-canary" in said
    served.start_worker()

    run = slowly(name="secret", sleep_s=0.1)

    wait_for(lambda: served.flow_processes(run), 60, "the flow's process starts")
    (value,) = {process.environ().get("RUNPOD_API_KEY") for process in served.flow_processes(run)}
    assert value == secret
    assert served.wait_until(run, "Completed", "Failed", "Crashed").is_completed()
    with served.client() as client:
        pool = client.read_work_pool(POOL)
        told = [pool, client.read_deployment_by_name("slow/slow"), client.read_flow_run(run)]
    assert "fanfold-canary" in pool.model_dump_json()
    assert secret not in "".join(each.model_dump_json() for each in told)


def test_every_flow_is_deployed_and_the_nightly_example_sleeps(served: Prefect):
    """From a clean clone."""
    with served.client() as client:
        found = {f"{d.name}": d for d in client.read_deployments() if d.name != "slow"}

    assert set(found) == DEPLOYED
    assert [schedule.active for schedule in found["video-analysis"].schedules] == [False]
    assert [schedule.active for schedule in found["reap-orphans"].schedules] == [True]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", sorted(DEPLOYED))
def test_a_deployment_runs_with_its_default_parameters(served: Prefect, name):
    """It completes at once and shows artifacts."""
    served.start_worker()

    run: Any = run_deployment(f"{name}/{name}", timeout=1200, poll_interval=1, as_subflow=False)

    state = served.state(run.id)
    assert state.is_completed(), state
    assert artifacts(served, run.id)


def test_a_schedule_fires(served: Prefect):
    """The reaper's own schedule makes flow runs ahead of time; one that comes every few seconds runs by itself."""
    served.start_worker()
    with served.client() as client:
        reaper = client.read_deployment_by_name("reap-orphans/reap-orphans")
        wait_for(lambda: of_schedules(served, StateType.SCHEDULED), 60, "the scheduler plans the reaper")
        often: Any = IntervalSchedule(interval=timedelta(seconds=30), anchor_date=datetime.now(UTC))
        (schedule,) = client.create_deployment_schedules(reaper.id, [(often, True)])

    try:
        wait_for(lambda: of_schedules(served, StateType.COMPLETED), 150, "a scheduled flow run completes")
    finally:
        with served.client() as client:
            client.delete_deployment_schedule(reaper.id, schedule.id)


def test_two_runs_of_one_deployment_respect_its_limit(served: Prefect, slowly):
    """The limit is 1: the second waits until the first is over, then runs."""
    served.start_worker()
    first, second = slowly(name="limit-a", sleep_s=0.3), slowly(name="limit-b", sleep_s=0.0)
    most = 0
    give_up_at = time.monotonic() + 200
    while not all(served.state(run).is_final() for run in (first, second)):
        most = max(most, [served.state(run).is_running() for run in (first, second)].count(True))
        assert time.monotonic() < give_up_at
        time.sleep(0.5)

    assert most == 1
    assert served.state(first).is_completed()
    assert served.state(second).is_completed()
    assert "AwaitingConcurrencySlot" in served.history(first) + served.history(second)


def artifacts(served: Prefect, run) -> list:
    with served.client() as client:
        found = client.request("POST", "/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [str(run)]}}})
    return found.json()


def of_schedules(served: Prefect, state: StateType) -> list[FlowRun]:
    """The reaper's flow runs that nobody but a schedule has asked for."""
    runs = served.runs_of("reap-orphans")
    return [run for run in runs if run.auto_scheduled and run.state_type is state]
