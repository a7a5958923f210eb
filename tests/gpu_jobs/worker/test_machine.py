"""All GPU workers of one machine: GPUs shared out, one killed and started again, none past the deadline."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.ledger.journal import Journal, Opened, Ordered
from gpu_jobs.testing import a_policy, an_order
from gpu_jobs.worker import machine
from gpu_jobs.worker.machine import Machine
from tests.chaos.havoc import gpu_workers, wait_for

NOBODY_STOPS_IT_S = 1000.0


def a_machine(**changes):
    asked = {"campaign": "uri", "order": "ff-1", "slots": range(2), "gpus_each": 1, "handle": "pod1", "deadline": 0.0}
    return Machine(**(asked | changes))


@pytest.mark.parametrize(
    ("changes", "given", "expected"),
    [
        ({"slots": range(4)}, "", ["0", "1", "2", "3"]),
        ({"slots": range(8, 10)}, "", ["0", "1"]),
        ({"gpus_each": 2}, "", ["0,1", "2,3"]),
        ({}, "GPU-a,GPU-b", ["GPU-a", "GPU-b"]),
        ({"gpus_each": 0}, "5", ["5", "5"]),
    ],
)
def test_gpus_are_shared_out_in_the_order_of_slots(changes, given, expected):
    """Of those that the container may see."""
    machine = a_machine(**changes)
    environ = {"CUDA_VISIBLE_DEVICES": given} if given else {}

    found = [machine.environment(slot, environ)["CUDA_VISIBLE_DEVICES"] for slot in machine.slots]

    assert found == expected


def test_cpu_threads_are_shared_out_unless_somebody_has_decided(monkeypatch):
    """By what the container may use, not by what the host has."""
    monkeypatch.setattr(machine, "_num_cpus", lambda: 8)

    assert a_machine(slots=range(4)).environment(0, {})["OMP_NUM_THREADS"] == "2"
    assert a_machine().environment(0, {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"


@pytest.fixture
def campaign(tmp_path):
    """Busy for longer than any test."""
    table = tmp_path / "items.csv"
    table.write_text("id\n" + "".join(f"{number}\n" for number in range(500)))
    spec = CampaignSpec(
        store_root=str(tmp_path / "store"),
        dataset=str(table),
        workload="noop",
        params={"sleep_s": 1.0},
        chunk_weight=1.0,
    )
    policy = a_policy(platforms=("local",), heartbeat_s=0.2)
    campaign = open_campaign(spec, policy)
    journal, at = Journal(campaign.store), an_order().expires_at
    journal.append(Opened(owner="test", policy=policy, at=at), upon=journal.read())
    order = an_order(name="ff-1", campaign_uri=campaign.store.uri, num_workers=2)
    journal.append(Ordered(order=order, owner="test", reason="test", at=at), upon=journal.read())
    return campaign


@pytest.fixture
def start(campaign):
    """Start a machine with two GPU workers; at the end nothing of it is left."""
    started = []

    def starts(code="", deadline=NOBODY_STOPS_IT_S):
        arguments = [
            campaign.store.uri, "--order", "ff-1", "--slots", "0-1", "--gpus", "0", "--handle", "pod1",
            "--deadline", str(time.time() + deadline),
        ]  # fmt: skip
        run = f"import sys, os; from gpu_jobs.worker import machine; {code}\nsys.exit(machine._parse().run(os.environ))"
        started.append(subprocess.Popen([sys.executable, "-c", run, *arguments]))
        return started[-1]

    yield starts
    for process in started:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
            child.kill()
        process.kill()
        process.wait()


def working(campaign):
    """Slots of GPU workers that hold a lease."""
    return sorted({beat.slot for beat, _ in campaign.ledger.heartbeats() if beat.leases})


def test_a_gpu_worker_that_is_killed_is_started_again_in_its_slot(campaign, start):
    """The other one goes on; a signal to all ends all, and what is finished is settled."""
    process = start()
    wait_for(lambda: working(campaign) == [0, 1])
    victim, other = gpu_workers(campaign)
    slot = victim.cmdline()[victim.cmdline().index("--slot") + 1]

    victim.kill()
    wait_for(lambda: len(gpu_workers(campaign)) == 2 and victim.pid not in {each.pid for each in gpu_workers(campaign)})

    (again,) = (each for each in gpu_workers(campaign) if each.pid != other.pid)
    assert again.cmdline()[again.cmdline().index("--slot") + 1] == slot
    wait_for(lambda: len({beat.worker_id for beat, _ in campaign.ledger.heartbeats()}) == 3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert gpu_workers(campaign) == []


def test_hung_gpu_workers_are_killed_after_the_deadline(campaign, start):
    """They have been asked before."""
    process = start("machine.GRACE_S = machine._STOP_S = 2.0", deadline=0.0)
    wait_for(lambda: len(gpu_workers(campaign)) == 2)
    for each in gpu_workers(campaign):
        each.suspend()

    assert process.wait(timeout=60) == -signal.SIGKILL % 256
    assert gpu_workers(campaign) == []
