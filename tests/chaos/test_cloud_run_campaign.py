"""Campaigns on Cloud Run and in a bucket, both emulated, through Google's own clients: whatever befalls them, no row is
lost or doubled, nothing is left running or billing, and the ledger says what happened."""

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, replace

import polars as pl
import pytest

from gpu_jobs.campaign.campaign import Campaign, open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.emulators.cloud_run import CloudRunEmulator, Fault, TaskFault
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.errors import RefusedError, StoreError
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.platforms.cloud_run.adapter import CloudRunPlatform
from gpu_jobs.store import open_store
from gpu_jobs.workloads.noop import value_of
from tests.chaos.havoc import gpu_workers, rows_of, wait_for
from tests.contracts.cloud_run_bench import cloud_run_settings, image

ITEMS = [f"ok-{index}" for index in range(60)]
ROWS = [(index, name, value_of(name)) for index, name in enumerate(ITEMS)]
POLICY = Policy(
    platforms=("cloud_run",), max_workers=2, heartbeat_s=0.3, lease_timeout_s=2.0, part_s=1.0, max_idle_jobs=10
)
_FLOW = f"""
import sys
from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.platforms.cloud_run.adapter import CloudRunPlatform
for _ in Campaign.open(sys.argv[1]).run({POLICY!r}, [CloudRunPlatform(deadline_s=60)], tick_s=0.1):
    pass
"""


@dataclass
class Cloud:
    """A project and a bucket, and one campaign in them."""

    emulator: CloudRunEmulator
    settings: object
    spec: CampaignSpec
    deadline_s: float = 30.0
    """Of a call; less where a test waits for it."""

    @property
    def world(self):
        return self.emulator.world

    def platform(self, **changes):
        return CloudRunPlatform(self.settings.model_copy(update=changes), deadline_s=self.deadline_s)

    def open(self, sleep_s=0.05) -> Campaign:
        return open_campaign(replace(self.spec, params={"sleep_s": sleep_s}), POLICY)

    def run(self, campaign, at_each_look=lambda _: None, **changes):
        """The last progress of a flow run."""
        for progress in campaign.run(POLICY, [self.platform(**changes)], tick_s=0.1):
            at_each_look(progress)
        return progress

    def assert_all_is_well(self, campaign, *, num_orders, num_executions):
        """Each row once, nothing left, every fault used, so many orders and executions."""
        manifest = collect(campaign.store, campaign.plan)
        assert rows_of(campaign, manifest).rows() == ROWS
        assert manifest.is_complete
        self.assert_nothing_is_left(campaign)
        assert (self.world.script.faults, self.world.script.task_faults) == ([], [])
        assert len(campaign.journal.read().orders) == num_orders
        assert self.world.num_started == num_executions

    def assert_nothing_is_left(self, campaign):
        """Not in the project, not on the bill, not in the journal, not on this machine."""
        assert self.world.bill.num_running == 0
        assert self.world.jobs == {}
        assert campaign.journal.read().live_orders == []
        assert gpu_workers(campaign) == []


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    with GcsEmulator() as gcs:
        gcs.make_bucket("campaigns")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        table = tmp_path / "items.parquet"
        pl.DataFrame({"id": ITEMS}).write_parquet(table)
        open_store("gs://campaigns/data").upload(table.name, table)
        spec = CampaignSpec(
            store_root=f"gs://campaigns/{tmp_path.name}",
            dataset=f"gs://campaigns/data/{table.name}",
            workload="noop",
            chunk_weight=6,
        )
        container = image(STORAGE_EMULATOR_HOST=gcs.url)
        with CloudRunEmulator(container, log_dir=tmp_path, stop_grace_s=5.0) as emulator:
            yield Cloud(emulator, cloud_run_settings(emulator.grpc_address), spec)


def reasons(campaign):
    return [entry.reason for entry in campaign.journal.read().ended.values()]


def test_lost_replies_slow_starts_short_quota_and_maintenance_cost_no_second_execution(cloud):
    """RunJob is carried out and its reply lost; polls fail; one GPU for two GPU workers; one is moved."""
    cloud.world.script.faults += [
        Fault(method="RunJob", reply_is_lost=True),
        Fault(method="GetJob", status=503),
        Fault(method="GetExecution", status=503, after_calls=2),
        Fault(method="GetExecution", status=429, after_calls=4),
        Fault(method="ListTasks", status=503),
    ]
    cloud.world.script.task_faults.append(TaskFault(kind="maintenance", index=0, after_s=1.0))
    cloud.world.gpu_quota["nvidia-l4"] = 1
    cloud.world.start_latency_s = 1.0
    campaign = cloud.open()

    cloud.run(campaign)

    cloud.assert_all_is_well(campaign, num_orders=1, num_executions=1)
    assert reasons(campaign) == ["succeeded"]


@pytest.mark.slow
def test_gpu_workers_that_the_platform_ends_are_replaced_and_the_ledger_says_why(cloud):
    """One is lost with its machine, one runs out of memory, their successor is killed; each in its own words."""
    strikes = [(1, 1, 0, "killed"), (10, 1, 1, "out_of_memory"), (15, 2, 0, "crashed")]
    campaign = cloud.open(sleep_s=0.2)

    def strike(progress):
        if not strikes or progress.items_done < strikes[0][0] or len(progress.jobs) < strikes[0][1]:
            return
        _, number, index, kind = strikes[0]
        with suppress(KeyError):  # not running yet
            cloud.emulator.strike(progress.jobs[number - 1].order, index, TaskFault(kind=kind))
            strikes.pop(0)

    cloud.run(campaign, strike)

    assert strikes == []
    orders = campaign.journal.read().orders
    cloud.assert_all_is_well(campaign, num_orders=len(orders), num_executions=len(orders))
    ended = [campaign.journal.read().ended[name] for name in orders]
    assert ended[0].reason == "preempted, or failed by the platform: Internal error., out of memory"
    assert ended[1].reason.startswith("killed by SIGKILL without a message")
    assert "failed with exit code: 0 and message: Internal error." in ended[0].detail


@pytest.mark.slow
def test_every_way_in_which_a_start_can_fail_ends_its_order_and_starts_nothing(cloud):
    """Six orders, one execution: each failed start is told in the ledger, and costs nothing."""
    cloud.world.script.faults += [
        Fault(method="CreateJob", status=503),
        Fault(method="CreateJob", reply_is_lost=True),
        Fault(method="CreateJob", status=429, message="no GPU left", is_in_operation=True),
        Fault(method="RunJob", status=429, message="too many runs"),
        Fault(method="RunJob", status=503),
    ]
    cloud.deadline_s = 4.0
    campaign = cloud.open()

    cloud.run(campaign)

    cloud.assert_all_is_well(campaign, num_orders=6, num_executions=1)
    told = reasons(campaign)
    assert told[0] == "not to be found on its platform"
    assert told[1] == told[4] == "created, but never run: the request was lost"
    assert "no GPU left" in told[2]
    assert "too many runs" in told[3]
    assert told[5] == "succeeded"
    assert sum(entry.spent_usd > 0 for entry in campaign.journal.read().ended.values()) == 1


@pytest.mark.slow
def test_an_interrupted_campaign_leaves_nothing_and_can_be_resumed(cloud):
    """Also if the first cancel gets no answer."""
    campaign = cloud.open(sleep_s=0.2)
    turns = campaign.run(POLICY, [cloud.platform()], tick_s=0.1)
    while next(turns).items_done < 5:
        pass
    cloud.world.script.faults.append(Fault(method="CancelExecution", status=503))
    with pytest.raises(KeyboardInterrupt):
        turns.throw(KeyboardInterrupt())

    cloud.assert_nothing_is_left(campaign)
    assert reasons(campaign) == ["stopped: interrupted by KeyboardInterrupt"]
    assert not collect(campaign.store, campaign.plan).is_complete

    cloud.run(campaign)

    cloud.assert_all_is_well(campaign, num_orders=2, num_executions=2)


@pytest.mark.parametrize(
    ("denied", "changes", "words"),
    [
        (set(), {"project": "others"}, "correct FANFOLD_CLOUD_RUN_PROJECT"),
        ({"run.jobs.create"}, {}, "permission run.jobs.create is missing"),
        ({"run.jobs.run"}, {}, "permission run.jobs.run is missing"),
        (set(), {"image": "no-such"}, "Image 'no-such' not found"),
    ],
)
def test_a_request_that_is_refused_closes_the_campaign_with_one_clear_message(cloud, denied, changes, words):
    """Asked once; nothing was run, no Job resource is left."""
    cloud.world.denied |= denied
    campaign = cloud.open()

    progress = cloud.run(campaign, **changes)

    assert progress.closed.startswith("cloud_run refuses: ")
    assert words in progress.closed
    assert len(campaign.journal.read().orders) == 1
    assert cloud.world.num_started == 0
    cloud.assert_nothing_is_left(campaign)


def test_a_region_without_the_gpu_type_is_refused_before_the_campaign_is_opened(cloud):
    """By the setting's name, with the regions that have it."""
    campaign = cloud.open()

    with pytest.raises(RefusedError, match="FANFOLD_CLOUD_RUN_REGION: us-central1 has no nvidia-l4; use nvidia-l4 in"):
        cloud.run(campaign, region="us-central1")

    assert cloud.emulator.calls == []
    assert campaign.journal.read().opened is None


def test_an_absent_bucket_is_named_before_anything_is_started(cloud):
    """When the campaign is opened."""
    with pytest.raises(StoreError, match="no-such-bucket"):
        open_campaign(replace(cloud.spec, store_root="gs://no-such-bucket/root"), POLICY)

    assert cloud.emulator.calls == []


def test_a_dataset_on_this_machine_is_refused(cloud):
    """GPU workers elsewhere cannot read it."""
    with pytest.raises(RefusedError, match="dataset: '/here' is a path of this machine; cloud_run cannot reach it"):
        open_campaign(replace(cloud.spec, dataset="/here"), POLICY)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "is_time", "num_orders"),
    [
        (Fault(method="CreateJob", latency_s=60), lambda cloud, _: "CreateJob" in cloud.emulator.calls, 2),
        (Fault(method="RunJob", latency_s=60), lambda cloud, _: "RunJob" in cloud.emulator.calls, 2),
        (None, lambda cloud, _: cloud.world.num_started, 1),
        (None, lambda _, campaign: any(campaign.store.list("settled/")), 1),
    ],
    ids=["between order and start", "between create and run", "before its GPU workers are bound", "while polling"],
)
def test_what_a_killed_orchestrator_leaves_is_adopted_or_ended(cloud, fault, is_time, num_orders):
    """SIGKILL at the worst moments; the next orchestrator finishes, with one execution in all."""
    cloud.deadline_s, cloud.world.start_latency_s = 4.0, 2.0
    cloud.world.script.faults += [fault] if fault else []
    campaign = cloud.open()
    environ = {
        f"FANFOLD_CLOUD_RUN_{name.upper()}": value for name, value in cloud.settings.model_dump().items() if value
    }
    environ = {name: value for name, value in environ.items() if isinstance(value, str)}
    flow = subprocess.Popen([sys.executable, "-c", _FLOW, campaign.store.uri], env={**os.environ, **environ})
    try:
        wait_for(lambda: is_time(cloud, campaign), within_s=60)
    finally:
        flow.kill()
        flow.wait()

    cloud.run(campaign)

    cloud.assert_all_is_well(campaign, num_orders=num_orders, num_executions=1)
    lost = ["not to be found on its platform", "created, but never run: the request was lost"]
    assert [reason for reason in reasons(campaign) if reason not in lost] == ["succeeded"]
