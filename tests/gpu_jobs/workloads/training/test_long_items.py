"""Items that take long: each a chunk of its own, left at checkpoints, and not convicted for getting on."""

import signal
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gpu_jobs.campaign.views import order_end
from gpu_jobs.dispatch.circuit_breakers import is_fruitless_error
from gpu_jobs.jobs.failures import Cause, Failure
from gpu_jobs.jobs.offers import LOCAL
from gpu_jobs.ledger.journal import Ended, Ordered
from gpu_jobs.ledger.ranges import from_boundaries
from gpu_jobs.platforms.local import LocalPlatform
from gpu_jobs.telemetry.workers import GpuWorkers
from gpu_jobs.testing import an_order
from tests.chaos.havoc import finish, gpu_workers, quarantine_of, rows_of, wait_for


def planned(campaign):
    return from_boundaries(campaign.plan.chunk_boundaries)


def ends_of(campaign):
    """How the attempts at the first item ended."""
    return campaign.ledger.ends(planned(campaign)[0], 60)


def steps_stored(campaign):
    """Of the first item."""
    return sum(1 for _ in campaign.store.list("checkpoints/0/step"))


def starts(campaign, index):
    return sum(1 for _ in campaign.store.list(f"checkpoints/{index}/start"))


def test_each_long_item_is_a_chunk(open_marathon):
    """However many there are, and though there are few GPU workers."""
    campaign = open_marathon(*(f"item-{number}" for number in range(20)))

    assert [chunk.num_items for chunk in planned(campaign)] == [1] * 20


def test_an_item_that_cannot_be_worked_on_is_set_aside(open_marathon, policy):
    campaign = open_marathon("a", "refuse-b", "c")

    manifest = finish(campaign, policy)

    assert rows_of(campaign, manifest)["item"].to_list() == ["a", "c"]
    (refused,) = quarantine_of(campaign, manifest).to_dicts()
    assert (refused["item"], refused["detail"]) == ("refuse-b", "diverged: as it always does")


def test_a_gpu_worker_that_must_leave_leaves_at_a_checkpoint(open_marathon, policy):
    """SIGTERM between two checkpoints: one is made, and the next attempt does only what was left."""
    campaign = open_marathon("a", steps=40, step_s=0.05, save_steps=1000)
    turns = campaign.run(policy, tick_s=0.1)
    next(turns)
    wait_for(lambda: any(beat.doing.startswith("step") for beat, _ in campaign.ledger.heartbeats()))
    gpu_workers(campaign)[0].send_signal(signal.SIGTERM)
    wait_for(lambda: ends_of(campaign))
    assert 0 < steps_stored(campaign) < 40
    *_, last = turns

    (end,) = ends_of(campaign)
    assert (end.cause, end.detail, end.advanced) == (Cause.STOPPED, "left at a checkpoint", True)
    assert last.is_complete
    assert starts(campaign, 0) == 2


class Impatient(LocalPlatform):
    """Kills three seconds after it has asked."""

    def offers(self):
        return [replace(LOCAL, grace_s=3.0)]


@pytest.mark.slow
@pytest.mark.parametrize(("platform", "is_kept"), [(LocalPlatform, True), (Impatient, False)])
def test_a_checkpoint_is_waited_for_as_long_as_the_platform_lets_one(open_marathon, policy, platform, is_kept):
    """A step takes four seconds, and is left at its end."""
    campaign = open_marathon("a", steps=10, step_s=4.0, save_steps=1000)
    turns = campaign.run(policy, [platform()], tick_s=0.1)
    next(turns)
    wait_for(lambda: any(beat.doing.startswith("step") for beat, _ in campaign.ledger.heartbeats()))
    gpu_workers(campaign)[0].send_signal(signal.SIGTERM)
    wait_for(lambda: ends_of(campaign))
    with pytest.raises(KeyboardInterrupt):
        turns.throw(KeyboardInterrupt())

    assert (steps_stored(campaign) > 0) is is_kept
    assert ends_of(campaign)[0].advanced is is_kept


@pytest.mark.parametrize("item", ["kill-a", "die-late-a"])
def test_deaths_after_a_checkpoint_convict_nobody(open_marathon, policy, item):
    """More of them in a row than convict an item or end a GPU worker: each has brought it on."""
    campaign = open_marathon(item, steps=4)

    manifest = finish(campaign, policy)

    ends = ends_of(campaign)
    assert len(ends) > policy.max_crashes
    assert all(end.cause is Cause.CRASHED and end.advanced and not end.blames_items for end in ends)
    assert manifest.num_committed == 1


def test_an_item_whose_processes_always_die_is_quarantined_and_the_others_go_on(open_marathon, policy):
    """Convicted by a GPU worker that has finished others; none of those is done again to prove it sound."""
    campaign = open_marathon("a", "b", "die-now-c", "d")

    manifest = finish(campaign, replace(policy, max_idle_jobs=10))

    rows = rows_of(campaign, manifest)
    assert rows["item"].to_list() == ["a", "b", "d"]
    assert rows["starts"].to_list() == [1, 1, 1]
    (convicted,) = quarantine_of(campaign, manifest).to_dicts()
    assert (convicted["item"], convicted["cause"]) == ("die-now-c", "crashed")


def test_no_long_item_is_done_again_to_prove_a_gpu_worker_sound(open_marathon, policy):
    """Though it fails from the first, and another has been finished before it came."""
    campaign = open_marathon("a", "die-now-b")
    turns = campaign.run(policy, tick_s=0.1)
    while not any(campaign.store.list("settled/")):
        next(turns)
    turns.close()

    *_, last = campaign.run(replace(policy, max_idle_jobs=1), tick_s=0.1)

    assert "got nothing done" in last.closed
    assert starts(campaign, 0) == 1


def test_a_heartbeat_tells_how_far_a_long_item_is(open_marathon, policy):
    campaign = open_marathon("a", steps=40, step_s=0.05, save_steps=1000)
    told = {job.doing for progress in campaign.run(policy, tick_s=0.1) for job in progress.jobs}

    assert any(words.startswith("step ") and words.endswith(" of 40") for words in told)


@pytest.mark.parametrize(("checkpoints", "is_fruitless"), [(0, True), (1, False)])
def test_a_gpu_job_that_only_checkpointed_was_not_fruitless(checkpoints, is_fruitless):
    """Preempted again and again, it gets on: the campaign is not closed as broken."""
    now = datetime.now(UTC)
    ordered = Ordered(order=an_order(), owner="test", reason="test", at=now)
    ended = Ended(
        order=ordered.order.name, reason="failed", items_done=0, checkpoints=checkpoints, spent_usd=0.1, at=now,
        failure=Failure.UNKNOWN,
    )  # fmt: skip

    assert bool(is_fruitless_error(order_end(GpuWorkers(()), ordered, ended))) == is_fruitless
