"""Campaigns on Modal, at its emulator: real client, real container entry point, a bucket, one's own workload."""

import json
import random
import subprocess
import sys
import time
from dataclasses import replace

import polars as pl
import pytest

from gpu_jobs.campaign.campaign import Campaign, open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.emulators.modal import Fault
from gpu_jobs.jobs.failures import Cause
from gpu_jobs.ledger.journal import Ended
from gpu_jobs.platforms.modal.adapter import ModalPlatform
from gpu_jobs.store import open_store
from gpu_jobs.workloads.noop import value_of
from tests.chaos.havoc import rows_of

ITEMS = [f"ok-{index}" for index in range(240)]
ROWS = [(number, name, value_of(name)) for number, name in enumerate(ITEMS)]
IDLE_S = 2


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """An emulated bucket that the containers reach too, with the items."""
    with GcsEmulator() as gcs:
        gcs.make_bucket("campaigns")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        pl.DataFrame({"id": ITEMS}).write_parquet(tmp_path / "items.parquet")
        open_store("gs://campaigns/data").upload("items.parquet", tmp_path / "items.parquet")
        yield gcs


@pytest.fixture
def cloud(modal_cloud, bucket, monkeypatch):
    """The settings of a user whose workload is the module `hostile`, and who keeps idle windows short."""
    monkeypatch.setenv("FANFOLD_MODAL_APP", "campaigns")
    monkeypatch.setenv("FANFOLD_MODAL_SOURCES", json.dumps(["tests.chaos.hostile"]))
    monkeypatch.setenv("FANFOLD_MODAL_SCALEDOWN_S", str(IDLE_S))
    return modal_cloud


@pytest.fixture
def opened(cloud, policy):
    def campaign(name="hostile", **params):
        spec = CampaignSpec(
            store_root="gs://campaigns/root",
            dataset="gs://campaigns/data/items.parquet",
            workload="tests.chaos.hostile:Hostile",
            params=params,
            name=name,
            chunk_weight=12,
        )
        return open_campaign(spec, on_modal(policy))

    return campaign


def on_modal(policy):
    return replace(policy, platforms=("modal",), max_workers=3)


def attempt_ends(campaign: Campaign) -> list[dict]:
    keys = [entry.key for entry in campaign.store.list("attempts/") if entry.key.endswith(".end.json")]
    return [json.loads(campaign.store.get(key)) for key in keys]


def wait_until_nothing_bills(cloud, lines):
    cloud.wait(lambda: not any(line.is_running for line in lines()))


class Preemptions:
    """Takes the first container and 30 % of all others back at seeded moments, half of them without notice."""

    def __init__(self, cloud, seed):
        self._cloud = cloud
        self._chance = random.Random(seed)
        self._due_at = {}
        self.num_done = 0

    def look(self):
        for container in self._cloud.containers():
            if container.held and container.id not in self._due_at:
                is_doomed = not self._due_at or self._chance.random() < 0.3
                delay_s = self._chance.uniform(0.3, 2.0) if is_doomed else float("inf")
                self._due_at[container.id] = time.monotonic() + delay_s
            if time.monotonic() > self._due_at.get(container.id, float("inf")) and not container.is_preempted:
                self.num_done += 1
                self._cloud.preempt(container)
                if self._chance.random() < 0.5:
                    self._cloud.kill(container)


@pytest.mark.slow
def test_preempted_containers_cost_no_row_and_are_no_failures(opened, cloud, policy):
    """Nothing is lost, doubled or quarantined; no attempt counts towards a conviction, no GPU job fails."""
    preemptions = Preemptions(cloud, seed=5)
    campaign = opened(item_s=0.06)
    before = len(cloud.bill.lines)

    for progress in campaign.run(on_modal(policy), tick_s=0.1):
        preemptions.look()
        last = progress
    manifest = collect(campaign.store, campaign.plan)

    assert preemptions.num_done > 0
    assert last.is_complete, last.closed
    assert rows_of(campaign, manifest).rows() == ROWS
    assert (manifest.num_committed, manifest.num_quarantined) == (len(ITEMS), 0)
    assert {end["cause"] for end in attempt_ends(campaign)} <= {Cause.STOPPED, Cause.RELEASED, Cause.LOST}
    assert {entry.reason for entry in campaign.journal.read().entries if isinstance(entry, Ended)} == {"succeeded"}
    wait_until_nothing_bills(cloud, lambda: cloud.bill.lines[before:])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["FunctionMap", "DictUpdate", "FunctionGetOutputs", "FunctionBindParams"])
def test_a_campaign_survives_a_call_that_fails(opened, cloud, policy, method):
    """Its reply lost, an outage through all of the client's tries, a rate limit: every row once, nothing at work."""
    before = len(cloud.bill.lines)
    campaign = opened(f"faults-{method.lower()}", item_s=0.02)
    patient = replace(on_modal(policy), max_idle_jobs=50)
    cloud.script.faults += [
        Fault(method=method, reply_is_lost=True),
        *[Fault(method=method, reply_is_lost=True)] * 4,
        *[Fault(method=method)] * 4,
        Fault(method=method, status="RESOURCE_EXHAUSTED"),
    ]

    *_, last = campaign.run(patient, [ModalPlatform(find_lag_s=5.0)], tick_s=0.1)
    cloud.script.faults.clear()
    manifest = collect(campaign.store, campaign.plan)

    assert last.is_complete, (last.closed, last.jobs)
    assert rows_of(campaign, manifest).rows() == ROWS
    assert cloud.unfinished() == []
    wait_until_nothing_bills(cloud, lambda: cloud.bill.lines[before:])


ORCHESTRATOR = """
import sys
from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.jobs.orders import Policy
policy = Policy(platforms=("modal",), max_workers=1, heartbeat_s=0.3, lease_timeout_s=2.0)
for _ in Campaign.open(sys.argv[1]).run(policy, tick_s=0.1):
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        ("FunctionBindParams", 3.0, 2),
        ("FunctionMap", 60.0, 1),
        ("DictUpdate", 60.0, 1),
        ("FunctionGetOutputs", 60.0, 1),
    ],
    ids=lambda case: case[0],
)
def test_what_a_killed_orchestrator_leaves_is_adopted(opened, cloud, policy, case):
    """Killed before the reply to a call: before the spawn, another order follows; after it, its GPU worker is found."""
    method, find_lag_s, num_orders = case
    before = len(cloud.bill.lines)
    campaign = opened(f"killed-{method.lower()}", item_s=0.02)
    cloud.script.faults += [Fault(method=method, reply_is_lost=True)] * 10
    with subprocess.Popen([sys.executable, "-c", ORCHESTRATOR, campaign.store.uri]) as orchestrator:
        try:
            cloud.wait(lambda: method in cloud.calls)
        finally:
            orchestrator.kill()
    cloud.script.faults.clear()

    one = replace(on_modal(policy), max_workers=1)
    *_, last = campaign.run(one, [ModalPlatform(find_lag_s=find_lag_s)], tick_s=0.1)

    assert last.is_complete, last.closed
    assert len(campaign.journal.read().orders) == num_orders
    assert rows_of(campaign, collect(campaign.store, campaign.plan)).rows() == ROWS
    assert cloud.unfinished() == []
    wait_until_nothing_bills(cloud, lambda: cloud.bill.lines[before:])


@pytest.mark.slow
def test_a_stopped_campaign_keeps_what_was_done_and_costs_nothing_more(opened, cloud, policy):
    """As an interrupted flow does: its GPU workers settle and leave, the idle window is all that is still paid."""
    before = len(cloud.bill.lines)
    campaign = opened("stopped", item_s=0.2)
    for progress in campaign.run(on_modal(policy), owner="me", tick_s=0.1):
        if progress.items_done:
            break

    campaign.stop("enough", owner="me")

    assert cloud.unfinished() == []
    manifest = collect(campaign.store, campaign.plan)
    assert 0 < manifest.num_committed < len(ITEMS)
    wait_until_nothing_bills(cloud, lambda: cloud.bill.lines[before:])
    assert all(line.idle_s < 10 * IDLE_S for line in cloud.bill.lines[before:])
