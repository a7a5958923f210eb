"""No secret value leaves its place."""

from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

from tests.flows.prefect_records import artifacts_of, events_of, flow_run_id
from tests.flows.small_flows import GatedCampaign

CANARY = "canary-7f3a91c04be2d865"
PLACES = (
    "GOOGLE_APPLICATION_CREDENTIALS_JSON",
    "MODAL_TOKEN_SECRET",
    "RUNPOD_API_KEY",
    "HF_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
)
"""Where platforms and libraries look for secrets."""


@pytest.fixture
def canary(monkeypatch, prefect_api) -> str:
    """A secret in the environment, which GPU workers inherit here, and in a Prefect block."""
    for name in PLACES:
        monkeypatch.setenv(name, CANARY)
    Secret(value=CANARY).save("fanfold-canary", overwrite=True)
    return CANARY


def test_a_secret_is_nowhere_after_a_campaign(start, tmp_path, canary):
    """Not in the store, GPU workers' logs, or what Prefect's API tells; even if a GPU job fails."""
    params = {"gate": str(tmp_path / "gate"), "opens_gate": True}

    state = start(GatedCampaign, params=params, max_workers=1)

    assert state.is_completed(), state.message
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "report.html" for path in files)
    assert any(path.suffix == ".log" and path.stat().st_size for path in files)
    assert holders(files, canary) == []
    told = told_by_prefect(state)
    assert "the gate is closed" in told
    assert "fanfold.campaign.closed" in told
    assert canary not in told


def holders(files: list[Path], secret: str) -> list[str]:
    return [path.name for path in files if secret.encode() in path.read_bytes()]


def told_by_prefect(state) -> str:
    """All that Prefect's API tells of a flow run, as text."""
    run = flow_run_id(state)
    logs_of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    with get_client(sync_client=True) as client:
        told: list[Any] = [client.read_flow_run(run), *client.read_flow_run_states(run)]
        offset = 0
        while page := client.read_logs(log_filter=logs_of_run, limit=200, offset=offset):
            told += page
            offset += len(page)
    told += artifacts_of(state)
    told += events_of(state, "fanfold.campaign.closed")
    return "\n".join(each.model_dump_json() for each in told)
