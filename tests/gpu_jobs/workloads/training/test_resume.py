"""Whatever happens to a training: it goes on from its newest checkpoint, and ends with the same weights.

Real torchrun, real Trainer, two processes; the model is tiny and random and proves the plumbing only.
"""

import random
import signal
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from gpu_jobs.campaign.collect import collect
from gpu_jobs.emulators.cloud_run import TaskFault
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger.ranges import Chunk
from tests.chaos.havoc import finish, gpu_workers, rows_of, wait_for
from tests.gpu_jobs.workloads.training.clouds import GPUS, ROOT, bucket, cloud_run_with, modal_with, runpod_with, upload
from tests.gpu_jobs.workloads.training.sweeps import open_sweep, steps_told, write_prepared

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = 30
LONG = {"method": "lora", "lora_dropout": 0.1, "batch": 16, "micro_batch": 1, "steps": STEPS}
LONG |= {"save_steps": 3, "eval_steps": 15}
RUNS = {"id": ["alone"]}


def a_policy(platform):
    return Policy(platforms=(platform,), max_workers=1, heartbeat_s=0.2, lease_timeout_s=4.0, stall_s=300.0)


def ranks(campaign):
    """The training processes of its GPU workers, without torchrun's own."""
    return [
        child
        for worker in gpu_workers(campaign)
        for child in worker.children(recursive=True)
        if "gpu_jobs.workloads.training.rank" in child.cmdline() and "torch.distributed.run" not in child.cmdline()
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, llama):
    """The row of a training that nobody disturbs, and what it learned from."""
    folder = tmp_path_factory.mktemp("undisturbed")
    data = write_prepared(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FANFOLD_GANG_SIZE", "2")
        patch.setenv("FANFOLD_MODEL_CACHE", str(folder / "cache"))
        patch.setenv("FANFOLD_LOG_DIR", str(folder / "logs"))
        campaign = open_sweep(folder, a_policy("local"), RUNS, model=llama, data=data, **LONG)
        (row,) = rows_of(campaign, finish(campaign, a_policy("local"))).to_dicts()
    return row, data


@pytest.fixture
def begin(tmp_path, monkeypatch, llama, undisturbed):
    """Open the same training, in a place of its own."""

    def begun(policy, *, processes):
        monkeypatch.setenv("FANFOLD_GANG_SIZE", str(processes))
        return open_sweep(tmp_path, policy, RUNS, model=llama, data=undisturbed[1], **LONG)

    return begun


@pytest.mark.parametrize("what", ["SIGKILL to a training process", "SIGKILL to the GPU worker", "SIGTERM"])
def test_a_training_ends_with_the_same_weights(begin, undisturbed, what):
    """At a random step; nothing of it is left running, and less than all of it is done again."""
    expected, _ = undisturbed
    policy = a_policy("local")
    campaign = begin(policy, processes=2)
    at = random.randrange(4, STEPS // 2)
    print(f"{what} at step {at}")
    turns = campaign.run(policy, tick_s=0.1)
    next(turns)
    wait_for(lambda: steps_told(campaign) >= at, 240)
    worker, trainers = gpu_workers(campaign)[0], ranks(campaign)
    if what == "SIGTERM":
        worker.send_signal(signal.SIGTERM)
    else:
        (worker if "GPU worker" in what else trainers[0]).kill()
    wait_for(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in trainers))
    for last in turns:
        assert last
    (row,) = rows_of(campaign, finish(campaign, policy)).to_dicts()

    assert len(trainers) == 2
    ends = campaign.ledger.ends(Chunk(0, 1), 10)
    assert ends, "it was not disturbed"
    if what != "SIGKILL to the GPU worker":  # which tells nothing
        assert ends[0].advanced
    assert_ended_alike(row, expected)


def assert_ended_alike(row, expected):
    assert row["model_sha256"] == expected["model_sha256"]
    assert row["eval_loss"] == expected["eval_loss"]
    assert [(each["step"], each["loss"]) for each in row["curve"]] == [
        (each["step"], each["loss"]) for each in expected["curve"]
    ]


def test_a_training_goes_on_with_another_number_of_processes(begin, monkeypatch, undisturbed):
    """Begun by two, left at a checkpoint, finished by one: the batch is the same, and so nearly the losses."""
    expected, _ = undisturbed
    policy = a_policy("local")
    campaign = begin(policy, processes=2)
    turns = campaign.run(policy, tick_s=0.1)
    next(turns)
    wait_for(lambda: steps_told(campaign) >= 5, 240)
    with pytest.raises(KeyboardInterrupt):
        turns.throw(KeyboardInterrupt())
    monkeypatch.setenv("FANFOLD_GANG_SIZE", "1")
    (row,) = rows_of(campaign, finish(campaign, policy)).to_dicts()

    assert row["processes"] == 1
    assert row["steps"] == STEPS
    assert row["eval_loss"] == pytest.approx(expected["eval_loss"], rel=0.05)


def preempt(modal, _):
    """The platform takes the machine back; the GPU worker has 30 s."""
    (container,) = (each for each in modal.containers() if each.held)
    modal.preempt(container)


def restart(runpod, _):
    """The pod's host dies and comes back."""
    (pod,) = runpod.world.pods.values()
    runpod.do(lambda _: pod.crash())


def lose(runpod, _):
    """The pod dies by RunPod's fault."""
    (pod,) = runpod.world.pods.values()
    runpod.do(lambda _: pod.fail())


def evict(cloud_run, order):
    """The task is killed from outside."""
    cloud_run.strike(order, 0, TaskFault(kind="killed"))


@contextmanager
def cloud(name, folder):
    """An emulated cloud and its platform; its containers have no GPU, so they are told the size of a gang."""
    environ = {"FANFOLD_GANG_SIZE": "2", "FANFOLD_MODEL_CACHE": str(folder / "cache-of-containers")}
    start = {"modal": modal_with, "runpod": runpod_with, "cloud_run": cloud_run_with}[name]
    with bucket() as gcs, start(folder, gcs, **environ) as found:
        yield found


@pytest.mark.parametrize(
    ("name", "disturb"), [("modal", preempt), ("runpod", restart), ("runpod", lose), ("cloud_run", evict)]
)
def test_a_training_in_a_cloud_ends_with_the_same_weights_as_here(tmp_path, llama, undisturbed, name, disturb):
    """It goes on from its newest whole checkpoint, in another container; data and model are in the bucket."""
    expected, _ = undisturbed
    gpus = 1 if name == "cloud_run" else GPUS
    policy = replace(a_policy(name), lease_timeout_s=6.0)
    with cloud(name, tmp_path) as (emulator, platform):
        model = upload(Path(llama), f"{ROOT}/llama")
        campaign = open_sweep(ROOT, policy, RUNS, model=model, data=write_prepared(ROOT), **{**LONG, "gpus": gpus})
        starts = set()
        is_disturbed = False
        for progress in campaign.run(policy, [platform], tick_s=0.1):  # noqa: B007 - the last one is looked at
            starts |= {beat.doing for beat, _ in campaign.ledger.heartbeats() if beat.doing.startswith("starting")}
            if not is_disturbed and steps_told(campaign) >= 8:
                disturb(emulator, *campaign.journal.read().orders)
                is_disturbed = True
        assert progress.is_complete, (progress.closed, progress.jobs)
        (row,) = rows_of(campaign, collect(campaign.store, campaign.plan)).to_dicts()
        offers = {entry.order.offer.num_gpus for entry in campaign.journal.read().orders.values()}

    first, again = sorted(starts, key=lambda words: int(words.split()[-1]))
    assert first == "starting 2 processes at step 0"
    assert int(again.split()[-1]) >= 3
    assert offers == {gpus}
    assert_ended_alike(row, expected)
