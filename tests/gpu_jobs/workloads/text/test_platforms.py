"""The same campaign on emulated clouds, with the model, the texts and the rows in a bucket."""

import importlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import polars as pl
import psutil
import pytest

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.store import open_store
from tests.chaos.havoc import finish, rows_of

NUM_TEXTS = 60


@pytest.fixture
def bucket(monkeypatch, tmp_path, llama):
    """A bucket with a table of texts and the model."""
    with importlib.import_module("gpu_jobs.emulators.gcs").rehearsal(tmp_path / "gcs") as gcs:
        for name, value in gcs.environ.items():
            monkeypatch.setenv(name, value)
        store = open_store("gs://rehearsal")
        for path in Path(llama).iterdir():
            store.upload(f"model/{path.name}", path)
        table = tmp_path / "texts.parquet"
        texts = {"id": [f"item-{n:02}" for n in range(NUM_TEXTS)], "text": [f"text {n % 7}" for n in range(NUM_TEXTS)]}
        pl.DataFrame(texts).write_parquet(table)
        store.upload("texts.parquet", table)
        yield "gs://rehearsal"


@pytest.fixture(params=["cloud_run", "modal", "runpod"])
def cloud(request, bucket, monkeypatch, tmp_path):
    """The emulator of one platform, where its adapter looks for it."""
    with importlib.import_module(f"gpu_jobs.emulators.{request.param}").rehearsal(tmp_path / request.param) as found:
        for name, value in found.environ.items():
            monkeypatch.setenv(name, value)
        yield request.param


def opened(bucket, name, platform, num_chunks, *, new_tokens=8):
    params = {"model": f"{bucket}/model", "max_new_tokens": new_tokens, "temperature": 1}
    spec = CampaignSpec(
        store_root=f"{bucket}/runs",
        dataset=f"{bucket}/texts.parquet",
        workload="generate",
        params=params,
        name=name,
        chunk_weight=(3 + 10 * new_tokens) * NUM_TEXTS / num_chunks,
    )
    policy = Policy(platforms=(platform,), max_workers=2, heartbeat_s=0.5, lease_timeout_s=4, part_s=0.5)
    return open_campaign(spec, policy), policy


def kill_all(campaign):
    """SIGKILL every GPU worker that has said where it is, at most once; return how many there were."""
    killed = 0
    for heartbeat, _ in campaign.ledger.heartbeats():
        with suppress(psutil.NoSuchProcess):
            psutil.Process(int(heartbeat.host.rpartition(":")[2])).kill()
            killed += 1
    return killed


@pytest.mark.slow
def test_what_was_killed_on_a_cloud_goes_on_elsewhere(bucket, cloud):
    """Its GPU workers and the flow run die in the middle; this machine resumes. Each text is its item's own."""
    whole, policy = opened(bucket, "whole", "local", 1, new_tokens=100)
    expected = rows_of(whole, finish(whole, policy))
    campaign, policy = opened(bucket, "killed", cloud, NUM_TEXTS, new_tokens=100)
    turns = campaign.run(policy, tick_s=0.1)
    for progress in turns:
        if progress.items_left < NUM_TEXTS:
            break
    assert kill_all(campaign) > 0
    turns.close()
    left = campaign.status().items_left
    assert 0 < left < NUM_TEXTS

    found = rows_of(campaign, finish(campaign, replace(policy, platforms=("local",))))

    assert found.rows() == expected.rows()


@pytest.mark.slow
def test_a_cloud_gives_the_texts_of_this_machine(bucket, cloud):
    """In one chunk here, in many there: each drawn text is its item's own."""
    here, policy = opened(bucket, "here", "local", 1)
    expected = rows_of(here, finish(here, policy))
    there, policy = opened(bucket, "there", cloud, 20)

    found = rows_of(there, finish(there, policy))

    assert found.rows() == expected.rows()
    assert expected["text"].n_unique() > 10
    assert len(there.plan.chunk_boundaries) > 10
    assert {row["platform"] for row in there.cost().iter_rows(named=True)} == {cloud}
