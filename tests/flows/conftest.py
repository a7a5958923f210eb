"""One Prefect server for all tests of flows; no other test pays for it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Running
from prefect.testing.utilities import prefect_test_harness

from gpu_jobs.campaign.campaign import Campaign, open_campaign
from tasks.flow_runs import CAMPAIGN_LABEL
from tests.flows.real_prefect import ZOMBIE_AFTER_S, Prefect, free_port, gpu_workers
from tests.flows.small_flows import NoopCampaign, in_sections, small

Start = Callable[..., State]


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    with (
        prefect_test_harness(server_startup_timeout=180),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),  # a second less per flow run
    ):
        yield


@pytest.fixture(autouse=True)
def _logs(monkeypatch, tmp_path):
    """GPU workers keep their logs with the test."""
    monkeypatch.setenv("FANFOLD_LOG_DIR", str(tmp_path / "logs"))


@pytest.fixture
def write_items(tmp_path) -> Callable[..., str]:
    """Write a table of ids; return its path."""

    def written(*ids: str, name: str = "items") -> str:
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join(["id", *ids]))
        return str(path)

    return written


@pytest.fixture
def items(write_items) -> str:
    """A table of 40 items."""
    return write_items(*(f"item-{number}" for number in range(40)))


@pytest.fixture
def start(prefect_api, tmp_path, items) -> Start:
    """Run the small flow over the 40 items, but for what is asked otherwise, to its final state."""

    def started(model: type[NoopCampaign] = NoopCampaign, **asked) -> State:
        wanted = in_sections(**{"dataset": items, "store_root": str(tmp_path / "store"), **asked})
        return small(model(**wanted), return_state=True)

    return started


@pytest.fixture
def lose(prefect_api, tmp_path, items) -> Iterator[Callable[[str], tuple[FlowRun, Campaign]]]:
    """Leave a flow run behind that is Running, with its campaign at work, as if its process had been killed."""
    left = []

    def lost(name: str) -> tuple[FlowRun, Campaign]:
        asked = NoopCampaign(
            **in_sections(dataset=items, store_root=str(tmp_path / "store"), name=name, params={"sleep_s": 5})
        )
        policy = replace(asked.policy, heartbeat_s=60.0, lease_timeout_s=180.0)  # they are slow to hear of anything
        campaign = open_campaign(asked.spec(datetime.now(UTC)), policy)
        with get_client(sync_client=True) as client:
            run = client.create_flow_run(small, parameters={"campaign": asked.model_dump(mode="json")})
            client.set_flow_run_state(run.id, Running(), force=True)
            client.update_flow_run_labels(run.id, {CAMPAIGN_LABEL: campaign.store.uri})
        turns = campaign.run(policy, owner=str(run.id))
        while not any(campaign.store.list("attempts/")):  # those that still start would find it closed, and leave
            next(turns)
        left.append(turns)
        return run, campaign

    yield lost
    for turns in left:
        turns.close()


@pytest.fixture(scope="session")
def real_prefect(tmp_path_factory) -> Iterator[Prefect]:
    """A server on loopback, set up and with everything deployed, for all tests that need a real one."""
    prefect = Prefect(tmp_path_factory.mktemp("prefect"), free_port())
    prefect.copy_project()
    try:
        prefect.start_server()
        prefect.run("flows.setup", "--zombie-after-s", str(ZOMBIE_AFTER_S))
        prefect.run("prefect", "--no-prompt", "deploy", "--all")
        prefect.run("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "slow.yaml")
        yield prefect
    finally:
        prefect.close()


@pytest.fixture
def served(real_prefect) -> Iterator[Prefect]:
    """The same, for one test, which leaves no Prefect worker and no GPU worker behind."""
    with temporary_settings({PREFECT_API_URL: real_prefect.url}):
        yield real_prefect
    real_prefect.stop_workers()
    for process in gpu_workers(real_prefect.clone / "fanfold-store"):
        process.kill()


@pytest.fixture
def slowly(served, items) -> Callable[..., UUID]:
    """Start the slow deployment: 40 items in two chunks, two GPU workers."""

    def started(*, name: str, sleep_s: float = 1.0) -> UUID:
        campaign = {
            "dataset": items,
            "name": name,
            "params": {"sleep_s": sleep_s},
            "advanced": {"chunk_weight": 20, "part_s": 1, "lease_timeout_s": 5},
        }
        return served.start("slow/slow", campaign=campaign)

    return started
