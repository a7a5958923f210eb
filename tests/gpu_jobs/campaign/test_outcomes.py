"""How GPU jobs and campaigns end, as values: whoever ends them says so, and no words are read."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.dispatch import stalls
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.orders import JobOutcome, Phase
from gpu_jobs.ledger.journal import CloseCause, Closed, Ended
from gpu_jobs.testing import a_policy, an_offer

POLICY = a_policy(max_workers=2)


def ends(world):
    return [entry for entry in world.entries if isinstance(entry, Ended)]


def cause(world):
    return next(entry.cause for entry in reversed(world.entries) if isinstance(entry, Closed))


def fail(world):
    for job in world.platform.jobs:
        world.platform.fail(job.order.name, "stopped working")


def test_a_complete_campaign(new_world):
    """Its GPU job has succeeded."""
    world = new_world()

    world.run_to_the_end()

    assert [end.outcome for end in ends(world)] == [JobOutcome.SUCCEEDED]
    assert cause(world) is CloseCause.COMPLETE


def test_a_gpu_job_that_fails_is_not_taken_for_stopped(new_world):
    """Whatever its words begin with."""
    world = new_world()

    progress = world.run_to_the_end(act=lambda: fail(world))

    assert {end.outcome for end in ends(world)} == {JobOutcome.FAILED}
    assert {job.status for job in progress.jobs} == {"failed"}
    assert cause(world) is CloseCause.IDLE_JOBS


def test_an_interrupted_campaign(new_world):
    """Its GPU jobs were stopped by us, for nobody's fault."""
    world = new_world()
    looks = world.run()
    next(looks)
    looks.close()

    assert [(end.outcome, end.failure) for end in ends(world)] == [(JobOutcome.STOPPED, None)]
    assert cause(world) is CloseCause.INTERRUPTED
    assert Campaign(world.store, world.plan).cost()["status"].to_list() == ["cancelled"]


def test_gpu_workers_that_exit_well_when_they_are_stopped_were_stopped(new_world, monkeypatch):
    """Their platform says that they have succeeded: that is no success of the GPU job."""
    world = new_world()
    end = world.platform._end
    monkeypatch.setattr(world.platform, "_end", lambda job, phase, reason: end(job, Phase.SUCCEEDED, ""))
    looks = world.run()
    next(looks)
    looks.close()

    assert [end.outcome for end in ends(world)] == [JobOutcome.STOPPED]


def test_a_campaign_that_is_stopped_from_outside(new_world):
    """By another process than the loop's."""
    world = new_world()
    campaign = Campaign(world.store, world.plan)
    looks = campaign.run(POLICY, [world.platform], tick_s=0, owner="me")
    next(looks)

    campaign.stop("enough", owner="me", platforms=[world.platform])

    assert [end.outcome for end in ends(world)] == [JobOutcome.STOPPED]
    assert cause(world) is CloseCause.STOPPED


def test_a_gpu_job_that_never_starts_was_stopped_for_its_platforms_fault(new_world, monkeypatch):
    """It is shown as cancelled, and held against its platform."""
    monkeypatch.setattr(stalls, "_longest_start_s", lambda job: -1.0)
    world = new_world()

    progress = world.run_to_the_end(replace(POLICY, max_idle_jobs=1), act=lambda: None)

    assert {(end.outcome, end.failure) for end in ends(world)} == {(JobOutcome.STOPPED, Failure.TIMEOUT)}
    assert {job.status for job in progress.jobs} == {"cancelled"}


@pytest.mark.parametrize(
    ("faults", "policy", "expected"),
    [
        ((), {"budget_usd": 0.1}, CloseCause.BUDGET),
        ((), {"deadline": datetime.now(UTC) - timedelta(hours=1)}, CloseCause.DEADLINE),
        ((), {"gpus": ("none such",)}, CloseCause.NO_OFFER),
        (("rejected",), {}, CloseCause.OFFERS_REFUSED),
        (("no_capacity",) * 9, {"max_wait_hours": 0.0}, CloseCause.NO_CAPACITY),
    ],
)
def test_why_a_campaign_closes_itself(new_world, faults, policy, expected):
    """Each reason has a value of its own."""
    world = new_world(*faults, offers=[an_offer(usd_per_hour=1.0)])

    world.run_to_the_end(replace(POLICY, **policy))

    assert cause(world) is expected


def test_what_is_set_aside_for_a_living_gpu_job_is_shown(new_world):
    """Together with what it has cost so far it is what was reserved; once it is over, nothing is set aside."""
    world = new_world(offers=[an_offer(usd_per_hour=1.0)])
    looks = world.run(replace(POLICY, budget_usd=50.0))

    progress = next(looks)

    (order,) = (entry.order for entry in world.entries if entry.kind == "ordered")
    assert progress.spent_usd + progress.reserved_usd == pytest.approx(order.reserved_usd)
    assert progress.reserved_usd > 0
    looks.close()
    assert Campaign(world.store, world.plan).status().reserved_usd == 0
