"""One Prefect server for all tests of flows; no other test pays for it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness
from small_flows import NoopCampaign, small

HERE = Path(__file__).parent
Start = Callable[..., State]


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    with (
        prefect_test_harness(server_startup_timeout=180),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),  # a second less per flow run
    ):
        yield


@pytest.fixture(autouse=True)
def _workloads_are_importable(monkeypatch, tmp_path):
    """GPU workers find `small_flows` and keep their logs with the test."""
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
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
        return small(model(**{"dataset": items, "store_root": str(tmp_path / "store"), **asked}), return_state=True)

    return started
