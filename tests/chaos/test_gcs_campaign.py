"""A campaign whose store is a bucket: the same rows as in a folder, also when the service misbehaves."""

from itertools import cycle

import polars as pl
import pytest

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.emulators.gcs import Fault, GcsEmulator
from gpu_jobs.workloads.noop import value_of
from tests.chaos.havoc import rows_of

ITEMS = [f"ok-{index}" for index in range(60)]


@pytest.fixture
def bucket(monkeypatch):
    """An emulated bucket that GPU workers reach too."""
    with GcsEmulator() as gcs:
        gcs.make_bucket("campaigns")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        yield gcs


@pytest.mark.slow
def test_a_bucket_that_loses_replies_and_refuses_loses_no_row(bucket, policy, tmp_path):
    """Two GPU workers, real client; attempts and settlements answered by 503, 429 or not at all."""
    table = tmp_path / "items.parquet"
    pl.DataFrame({"id": ITEMS}).write_parquet(table)
    spec = CampaignSpec(
        store_root=f"gs://campaigns/{tmp_path.name}",
        dataset=str(table),
        workload="tests.chaos.hostile:Hostile",
        params={"item_s": 0.02},
        chunk_weight=6,
    )
    campaign = open_campaign(spec, policy)
    script = cycle(
        [
            Fault(method="POST", path="/upload/", reply_is_lost=True),
            Fault(method="POST", path="/upload/", status=503),
            Fault(method="GET", status=503),
            Fault(method="POST", path="/upload/", status=429),
        ]
    )

    left = 20
    for progress in campaign.run(policy, tick_s=0.1):
        if left and progress.jobs and progress.jobs[0].workers_alive:
            bucket.faults.append(next(script))
            left -= 1
    assert len(bucket.faults) + left < 10, "most faults never came to pass"
    bucket.faults.clear()
    manifest = collect(campaign.store, campaign.plan)

    assert rows_of(campaign, manifest).rows() == [(n, name, value_of(name)) for n, name in enumerate(ITEMS)]
    assert manifest.is_complete
