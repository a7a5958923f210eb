"""Campaigns of hostile items, on real GPU worker processes of this machine."""

from collections.abc import Callable, Sequence

import polars as pl
import pytest

from gpu_jobs.campaign.campaign import Campaign, open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.jobs.orders import Policy

HOSTILE = "tests.chaos.hostile:Hostile"


@pytest.fixture(autouse=True)
def _logs(monkeypatch, tmp_path):
    """GPU workers keep their logs with the test."""
    monkeypatch.setenv("FANFOLD_LOG_DIR", str(tmp_path / "logs"))


@pytest.fixture
def policy() -> Policy:
    """Impatient, so that tests are short."""
    return Policy(max_workers=2, heartbeat_s=0.3, lease_timeout_s=2.0, part_s=1.0, stall_s=60.0)


Open = Callable[..., Campaign]


@pytest.fixture
def open_hostile(tmp_path, policy) -> Open:
    """Open a campaign over items of these names; the same names give the same campaign."""

    def opened(
        items: Sequence[str], *, chunk_items: int = 10, name: str = "hostile", workload: str = HOSTILE, **params: object
    ) -> Campaign:
        table = tmp_path / f"{name}.parquet"
        pl.DataFrame({"id": items}).write_parquet(table)
        spec = CampaignSpec(
            store_root=str(tmp_path / "store"),
            dataset=str(table),
            workload=workload,
            params=params,
            name=name,
            chunk_weight=chunk_items,
        )
        return open_campaign(spec, policy)

    return opened
