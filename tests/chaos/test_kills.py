"""Whatever is killed, the collected output equals that of an undisturbed campaign, byte for byte."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.progress import Progress
from tests.chaos.havoc import finish, gpu_workers, wait_for

ITEMS = [f"ok-{index}" for index in range(120)]
SLOWLY = {"item_s": 0.02}

_FLOW = """
import sys
from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.jobs.orders import Policy
policy = Policy(max_workers=2, heartbeat_s=0.3, lease_timeout_s=2.0, part_s=1.0)
for _ in Campaign.open(sys.argv[1]).run(policy, tick_s=0.1):
    pass
"""


def settled(campaign: Campaign) -> int:
    return sum(1 for _ in campaign.store.list("settled/"))


@pytest.fixture
def undisturbed(open_hostile, policy):
    """Checksums of the outputs of a campaign that nobody disturbs."""
    manifest = finish(open_hostile(ITEMS, name="undisturbed"), policy)
    return [file.sha256 for file in manifest.outputs]


def run_and(campaign: Campaign, policy, disturb: Callable[[Progress], bool]) -> Progress:
    """Run a campaign; call `disturb` at every look until it returns True."""
    is_done = False
    for progress in campaign.run(policy, tick_s=0.1):
        is_done = is_done or disturb(progress)
    assert is_done
    return progress


def published(campaign: Campaign) -> list[str]:
    manifest = collect(campaign.store, campaign.plan)
    assert manifest.is_complete
    assert manifest.num_committed == len(ITEMS)
    return [file.sha256 for file in manifest.outputs]


@pytest.mark.parametrize("whom", ["supervisor", "compute process"])
def test_a_kill_costs_no_row(open_hostile, policy, undisturbed, whom):
    """SIGKILL to one GPU worker, or to its compute process, in the middle of its work."""
    campaign = open_hostile(ITEMS, **SLOWLY)

    def kill_one(progress: Progress) -> bool:
        if progress.items_done < 20:
            return False
        victim = gpu_workers(campaign)[0]
        if whom == "compute process":
            victim = next(child for child in victim.children() if "spawn_main" in " ".join(child.cmdline()))
        victim.kill()
        return True

    run_and(campaign, policy, kill_one)

    assert published(campaign) == undisturbed


def test_a_terminated_gpu_worker_commits_what_is_finished_and_leaves_within_five_seconds(
    open_hostile, policy, undisturbed
):
    """SIGTERM: the finished part of its chunk is committed, the rest stays open for the others."""
    campaign = open_hostile(ITEMS, chunk_items=60, **SLOWLY)
    took_s = []

    def terminate_one(progress: Progress) -> bool:
        begun = {entry.key.partition(".")[0] for entry in campaign.store.list("parts/")}
        if progress.items_done < 20 or len(begun) < 2:  # each of the two has finished something, and has more to do
            return False
        victim, asked_at = gpu_workers(campaign)[0], time.monotonic()
        victim.send_signal(signal.SIGTERM)
        wait_for(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE)
        took_s.append(time.monotonic() - asked_at)
        return True

    run_and(campaign, policy, terminate_one)

    assert took_s[0] < 5
    salvaged = [entry.summary for entry in campaign.store.list("settled/") if "open" in entry.summary]
    assert salvaged, "nothing was salvaged"
    assert published(campaign) == undisturbed


def test_a_killed_flow_is_taken_over_with_its_gpu_workers(open_hostile, policy, undisturbed):
    """SIGKILL to the orchestrator: its GPU workers work on, and the next one adopts them."""
    campaign = open_hostile(ITEMS, item_s=0.05)
    flow = subprocess.Popen([sys.executable, "-c", _FLOW, campaign.store.uri])
    wait_for(lambda: settled(campaign) > 0)
    flow.kill()
    flow.wait()
    before = {process.pid for process in gpu_workers(campaign)}

    last = run_and(campaign, policy, lambda _: True)

    assert len(before) == 2
    assert len(last.jobs) == 1, "the new orchestrator started GPU workers though two were alive"
    assert published(campaign) == undisturbed
    assert gpu_workers(campaign) == []


def test_gpu_workers_outlive_neither_their_work_nor_a_closed_campaign(open_hostile, policy):
    """Without any orchestrator they finish what is open and leave."""
    campaign = open_hostile(ITEMS, item_s=0.02)
    flow = subprocess.Popen([sys.executable, "-c", _FLOW, campaign.store.uri])
    wait_for(lambda: gpu_workers(campaign))
    flow.kill()
    flow.wait()

    wait_for(lambda: not gpu_workers(campaign))

    assert collect(campaign.store, campaign.plan).is_complete


def test_an_interrupted_loop_leaves_nothing_running_and_can_be_resumed(open_hostile, policy, undisturbed):
    """An exception into the loop stops the GPU workers, keeps what is finished, and closes the campaign."""
    campaign = open_hostile(ITEMS, **SLOWLY)
    turns = campaign.run(policy, tick_s=0.1)
    while next(turns).items_done < 20:
        pass
    with pytest.raises(KeyboardInterrupt):
        turns.throw(KeyboardInterrupt())

    assert gpu_workers(campaign) == []
    partial = collect(campaign.store, campaign.plan)
    assert not partial.is_complete
    assert partial.num_committed >= 20

    finish(campaign, policy)

    assert published(campaign) == undisturbed


def test_two_loops_on_one_campaign_never_double_its_gpu_workers(open_hostile, policy, undisturbed):
    """The newer one takes over; the older one gives way and says so."""
    campaign = open_hostile(ITEMS, item_s=0.05)
    older = subprocess.Popen([sys.executable, "-c", _FLOW, campaign.store.uri], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(gpu_workers(campaign)) == 2)
    most = []

    def count(_: Progress) -> bool:
        most.append(len(gpu_workers(campaign)))
        return True

    run_and(campaign, policy, count)

    _, errors = older.communicate(timeout=30)
    assert "this one stops" in errors
    assert max(most) <= 2
    assert published(campaign) == undisturbed
