"""Campaigns of hostile items, on real GPU worker processes of this machine."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest

from gpu_jobs.campaign.campaign import Campaign, open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.jobs.orders import Policy

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _workload_is_importable(monkeypatch, tmp_path):
    """GPU workers find `hostile` and keep their logs with the test."""
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("FANFOLD_LOG_DIR", str(tmp_path / "logs"))


@pytest.fixture
def policy() -> Policy:
    """Impatient, so that tests are short."""
    return Policy(max_workers=2, heartbeat_s=0.3, lease_timeout_s=2.0, part_s=1.0, stall_s=60.0)


Open = Callable[..., Campaign]


@pytest.fixture
def open_hostile(tmp_path, policy) -> Open:
    """Open a campaign over items of these names; the same names give the same campaign."""

    def opened(items: Sequence[str], *, chunk_items: int = 10, name: str = "hostile", **params: object) -> Campaign:
        table = tmp_path / f"{name}.parquet"
        pl.DataFrame({"id": items}).write_parquet(table)
        spec = CampaignSpec(
            store_root=str(tmp_path / "store"),
            dataset=str(table),
            workload="hostile:Hostile",
            params=params,
            name=name,
            chunk_weight=chunk_items,
        )
        return open_campaign(spec, policy)

    return opened
