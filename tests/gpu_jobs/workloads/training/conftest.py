"""Campaigns of long items, on real GPU worker processes of this machine."""

import polars as pl
import pytest

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.jobs.orders import Policy


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
            workload="tests.gpu_jobs.workloads.training.marathon:Marathon",
            params=params,
            name="marathon",
        )
        return open_campaign(spec, policy)

    return opened
