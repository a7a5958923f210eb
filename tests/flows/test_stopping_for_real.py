"""Flow runs that are cancelled, suspended or killed, on a real server with a real process worker."""

import signal
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment
from prefect.states import Cancelling, Suspended

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.manifest import newest_manifest
from tests.flows.real_prefect import ZOMBIE_AFTER_S, Prefect, end, gpu_workers, wait_for

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

GRACE_S = 30


@pytest.fixture
def root(served) -> Path:
    return served.clone / "fanfold-store"


@pytest.fixture
def at_work(served, root, slowly):
    """Start the slow flow and wait until both of its GPU workers have finished something."""

    def started(name: str, *, sleep_s: float = 1.0) -> UUID:
        served.start_worker()
        run = slowly(name=name, sleep_s=sleep_s)
        wait_for(lambda: len(gpu_workers(root)) == 2, 120, "two GPU workers run")
        wait_for(
            lambda: len({key.split(".")[0] for key in parts(root / name)}) == 2, 60, "both have finished something"
        )
        return run

    return started


def parts(folder: Path) -> list[str]:
    return [entry.key for entry in Campaign.open(str(folder)).store.list("parts/")]


def settled_items(folder: Path) -> int:
    progress = Campaign.open(str(folder)).status()
    return progress.num_items - progress.items_left


def finish(served: Prefect, slowly, folder: Path, *, sleep_s: float = 1.0) -> None:
    """A new flow run of the same campaign completes it and repeats nothing that is settled."""
    before = settled_items(folder)
    run = slowly(name=folder.name, sleep_s=sleep_s)
    state = served.wait_until(run, "Completed", "Failed", "Crashed", "Cancelled")

    assert state.is_completed(), state
    manifest = newest_manifest(Campaign.open(str(folder)).store)
    assert manifest.is_complete
    assert manifest.num_committed == 40
    redone = [entry for entry in Campaign.open(str(folder)).store.list("settled/") if "open" in entry.summary]
    assert before == 0 or redone, "nothing was salvaged"


def test_a_cancelled_flow_run_stops_its_gpu_workers_and_keeps_what_they_finished(served, root, at_work, slowly):
    """Cancelled through the API: every process is gone within the grace, salvage is committed, the next one goes on."""
    run = at_work("cancelled")
    cancelled_at = time.monotonic()
    served.set_state(run, Cancelling())

    wait_for(lambda: not gpu_workers(root), GRACE_S, "the GPU workers are gone")
    wait_for(lambda: not served.processes_of(run), GRACE_S, "the flow's process is gone")
    assert time.monotonic() - cancelled_at < GRACE_S
    assert served.wait_until(run, "Cancelled", within_s=60)
    print(f"all processes gone {time.monotonic() - cancelled_at:.1f} s after the click")

    journal = Campaign.open(str(root / "cancelled")).journal.read()
    assert journal.closed.reason == "interrupted by TerminationSignal"
    assert not journal.live_orders
    assert 0 < settled_items(root / "cancelled") < 40
    assert "all GPU jobs have ended" in stopped(served, run)
    reap(served)
    assert "all GPU jobs have ended" in served.state(run).message
    finish(served, slowly, root / "cancelled")


def test_a_suspended_flow_run_holds_no_gpu_worker_and_goes_on_when_it_is_resumed(served, root, at_work):
    """Suspend is our pause: nothing runs meanwhile, and Prefect starts the same flow run again on resume."""
    run = at_work("suspended")
    served.set_state(run, Suspended(timeout_seconds=600))

    wait_for(lambda: not gpu_workers(root), GRACE_S + 10, "the GPU workers are gone")
    wait_for(lambda: not served.processes_of(run), 60, "the flow's process is gone")
    assert served.state(run).name == "Suspended"
    with served.client() as client:
        client.resume_flow_run(run)

    assert served.wait_until(run, "Completed", "Failed", "Crashed").is_completed()
    assert newest_manifest(Campaign.open(str(root / "suspended")).store).num_committed == 40


def test_a_killed_flow_is_swept_by_its_prefect_worker(served, root, at_work, slowly):
    """SIGKILL to the flow's process: the hook stops the GPU workers, and the state says so."""
    run = at_work("killed")
    for process in served.flow_processes(run):
        process.kill()

    wait_for(lambda: not gpu_workers(root), 60, "the GPU workers are gone")
    wait_for(lambda: "all GPU jobs have ended" in served.state(run).message, 30, "the state says so")
    assert served.state(run).is_crashed()
    finish(served, slowly, root / "killed")


def test_a_dead_prefect_worker_and_flow_leave_nothing_for_long(served, root, at_work, slowly):
    """SIGKILL to both: the zombie automation or the reaper finds the flow run and its GPU workers."""
    run = at_work("zombie", sleep_s=5)
    kill_all(served, run)
    assert served.state(run).is_running()

    time.sleep(ZOMBIE_AFTER_S + 10)
    print(f"before the reaper: {served.state(run)!r}")
    reap(served, silent_minutes=1)

    assert not gpu_workers(root)
    state = served.state(run)
    assert state.is_crashed()
    assert "no heartbeat" in state.message
    assert "all GPU jobs have ended" in state.message
    finish(served, slowly, root / "zombie", sleep_s=5)


def test_a_redeployed_prefect_worker_leaves_nothing_for_long(served, root, at_work, slowly):
    """SIGTERM to the Prefect worker ends its flow without a word; whatever it leaves is found as above."""
    run = at_work("redeployed", sleep_s=5)
    end(served.workers.pop(), signal.SIGTERM)
    print(f"after SIGTERM: {served.state(run)!r}, {len(gpu_workers(root))} GPU workers")

    time.sleep(ZOMBIE_AFTER_S + 10)
    reap(served, silent_minutes=1)

    assert not gpu_workers(root)
    assert "all GPU jobs have ended" in served.state(run).message
    finish(served, slowly, root / "redeployed", sleep_s=5)


def test_a_cancel_that_nobody_can_carry_out_is_carried_out_by_the_reaper(served, root, at_work, slowly):
    """Prefect worker and flow are dead, the flow run is Cancelling for ever: the reaper calls it Cancelled."""
    run = at_work("orphaned", sleep_s=3)
    kill_all(served, run)
    served.set_state(run, Cancelling())
    served.start_worker()
    time.sleep(10)
    assert served.state(run).name == "Cancelling", "a new Prefect worker adopts it, so we need not"
    assert len(gpu_workers(root)) == 2

    reap(served, cancelling_minutes=0.1)

    assert not gpu_workers(root)
    state = served.state(run)
    assert state.type is StateType.CANCELLED
    assert "without its Prefect worker" in state.message
    assert "all GPU jobs have ended" in state.message
    finish(served, slowly, root / "orphaned", sleep_s=3)


def test_a_flow_that_is_cancelled_when_its_prefect_worker_is_dead_ends_all_the_same(served, root, at_work, slowly):
    """Nobody signals the flow's process: it ends by itself or by the reaper; nothing is left."""
    run = at_work("alone", sleep_s=3)
    end(served.workers.pop(), signal.SIGKILL)
    served.set_state(run, Cancelling())
    time.sleep(10)
    print(f"before the reaper: {served.history(run)}")

    reap(served, cancelling_minutes=0.1)

    assert not gpu_workers(root)
    wait_for(lambda: not served.processes_of(run), 60, "the flow's process is gone")
    assert served.state(run).type in (StateType.CANCELLED, StateType.CRASHED)
    assert "all GPU jobs have ended" in served.state(run).message
    finish(served, slowly, root / "alone", sleep_s=3)


def kill_all(served: Prefect, run: UUID) -> None:
    """SIGKILL to all Prefect workers and the flow's process, not to its GPU workers."""
    for worker in served.workers:
        worker.kill()
        worker.wait()
    served.workers.clear()
    for process in served.flow_processes(run):
        process.kill()


def reap(served: Prefect, **parameters: object) -> None:
    """One run of the reaper's deployment, on a Prefect worker that lives; one by its schedule may have to end first."""
    if not served.workers:
        served.start_worker()
    wait_for(lambda: ran_reaper(parameters), 120, "the reaper's slot is free")


def ran_reaper(parameters: dict[str, object]) -> bool:
    """Whether the reaper has completed; if not, Prefect has cancelled it, since its only slot was taken."""
    run: Any = run_deployment(
        "reap-orphans/reap-orphans", parameters={"reaper": parameters}, timeout=120, poll_interval=1, as_subflow=False
    )
    assert run.state.is_completed() or run.state.is_cancelled(), run.state
    return bool(run.state.is_completed())


def stopped(served: Prefect, run: UUID) -> str:
    """What the hook has shown on the flow run's page."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [str(run)]}}}
    with served.client() as client:
        found = client.request("POST", "/artifacts/filter", json=wanted).json()
    return "".join(each["data"] for each in found if each["key"].endswith("-stopped"))
