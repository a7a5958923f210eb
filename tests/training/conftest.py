"""Campaigns of long items, on real GPU worker processes of this machine."""

import os
from pathlib import Path

import polars as pl
import pytest
from tiny_models import write_llama

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.jobs.orders import Policy

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch, tmp_path):
    """GPU workers find the workloads of these tests, and keep logs and downloads with the test."""
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("FANFOLD_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.setenv("FANFOLD_MODEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def policy() -> Policy:
    return Policy(max_workers=1, heartbeat_s=0.3, lease_timeout_s=3.0, stall_s=240.0)


@pytest.fixture
def open_marathon(tmp_path, policy):
    """Open a campaign over long items of these names."""

    def opened(*items, **params):
        table = tmp_path / "items.parquet"
        pl.DataFrame({"id": items}).write_parquet(table)
        spec = CampaignSpec(
            store_root=str(tmp_path / "store"),
            dataset=str(table),
            workload="marathon:Marathon",
            params=params,
            name="marathon",
        )
        return open_campaign(spec, policy)

    return opened
