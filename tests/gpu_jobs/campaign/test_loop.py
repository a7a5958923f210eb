"""The loop that orders GPU jobs, follows them, and gives way: on a fake platform and a store in memory."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gpu_jobs.campaign import loop
from gpu_jobs.errors import SupersededError
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.journal import Ended, Journal, Opened, Ordered
from gpu_jobs.testing import FakeClock, FakeGpuWorker, a_policy, an_offer

POLICY = a_policy(max_workers=2)
MAX_LOOKS = 200


def test_a_campaign_is_done_by_one_gpu_job(new_world):
    """Ordered once, worked through, ended and closed, with everybody's items counted."""
    world = new_world()

    progress = world.run_to_the_end()

    assert world.kinds() == ["opened", "ordered", "ended", "closed"]
    assert (progress.is_complete, progress.closed, progress.items_done) == (True, "every item is settled", 6)
    assert len(world.platform.jobs) == 1
    (job,) = progress.jobs
    assert (job.status, job.items_done, job.workers) == ("succeeded", 6, 2)


def test_the_order_is_in_the_journal_before_the_platform_hears_of_it(new_world):
    """Order before effect, with its dollars and its expiry."""
    world = new_world()
    known = []
    world.platform.on_start = lambda order: known.append(
        [entry.order for entry in world.entries if isinstance(entry, Ordered)] == [order]
    )

    world.run_to_the_end(replace(POLICY, job_hours=2.0))

    assert known == [True]
    (order,) = Journal(world.store).read().orders.values()
    assert order.order.reserved_usd == pytest.approx(2 * 0.36 * (2.0 + 1 / 6))  # and until the reaper has come
    assert order.order.expires_at - order.at == timedelta(hours=2)


def test_no_gpu_job_outlives_the_deadline(new_world):
    """Its expiry is the deadline if that comes first."""
    world = new_world()
    deadline = datetime.now(UTC) + timedelta(minutes=5)

    world.run_to_the_end(replace(POLICY, deadline=deadline))

    assert world.platform.jobs[0].order.expires_at == deadline


@pytest.mark.parametrize("find_lag_s", [0.0, 60.0])
def test_a_gpu_job_whose_start_reply_was_lost_is_adopted(new_world, find_lag_s):
    """It is found by its name, at once or when the platform's listing catches up; there is no second one."""
    clock = FakeClock()
    world = new_world("reply_lost", find_lag_s=find_lag_s, clock=clock)

    def wait_then_work():
        clock.pass_time(25)
        if clock.now_s - world.platform.jobs[0].started_s > find_lag_s:
            world.work()

    progress = world.run_to_the_end(act=wait_then_work)

    assert progress.is_complete
    assert (world.platform.num_starts, len(world.platform.jobs)) == (1, 1)


def test_an_order_whose_request_was_lost_is_ended_and_ordered_again(new_world):
    """When the platform would have to know of it and does not, it is noted as over, for nothing."""
    world = new_world("request_lost")

    progress = world.run_to_the_end()

    lost, done = (entry for entry in world.entries if isinstance(entry, Ended))
    assert (lost.reason, lost.spent_usd) == ("not to be found on its platform", 0.0)
    assert done.items_done == 6
    assert progress.is_complete


def test_an_order_within_the_find_lag_is_not_given_up(new_world):
    """A listing that lags proves nothing: no second GPU job is ordered meanwhile."""
    world = new_world("reply_lost", find_lag_s=1e6)
    looks = world.run()

    seen = [next(looks) for _ in range(10)]
    world.platform.find_lag_s = 0.0
    looks.close()

    assert world.platform.num_starts == 1
    assert {progress.jobs[0].status for progress in seen[1:]} == {"pending"}


def test_a_platform_that_does_not_answer_for_a_while_costs_nothing(new_world):
    """No news is not an end: nothing is ordered again, and the work goes on."""
    world = new_world("reply_lost")
    blind_after_looks = iter([1, 2, 2])

    def look_away():
        world.platform.num_blind = next(blind_after_looks, 0)
        if not world.platform.num_blind:
            world.work()

    progress = world.run_to_the_end(act=look_away)

    assert progress.is_complete
    assert (world.platform.num_starts, len(world.platform.jobs)) == (1, 1)
    (ended,) = (entry for entry in world.entries if isinstance(entry, Ended))
    assert (ended.reason, ended.items_done) == ("succeeded", 6)


def test_a_permission_that_is_lost_costs_no_work_and_is_told_once(new_world, caplog):
    """A platform that refuses every question is heard no more, yet its GPU workers settle what they have leased."""
    world = new_world()
    looks = world.run(POLICY)
    next(looks)
    world.platform.refuses = "the API key was revoked"
    world.work()

    seen = [next(looks) for _ in range(5)]

    assert seen[-1].items_done == 6
    assert [told.message for told in caplog.records if "revoked" in told.message] == [
        "fake rejected a status request: the API key was revoked"
    ]
    world.platform.refuses = ""
    *_, last = looks
    assert last.is_complete


def test_an_order_of_which_nothing_is_heard_is_given_up_when_its_time_is_long_over(new_world, monkeypatch):
    """No flow run waits for ever for a platform that does not answer."""
    monkeypatch.setattr(loop, "REAPER_S", 0.0)
    world = new_world()
    looks = world.run(replace(POLICY, job_hours=1 / 3600, max_idle_jobs=1))
    next(looks)
    world.platform.refuses = "the API key was revoked"

    *_, last = looks

    ended = next(entry for entry in world.entries if isinstance(entry, Ended))
    assert ended.reason == "it has expired, and its platform does not report its status: the API key was revoked"
    assert ended.at > Journal(world.store).read().orders[ended.order].order.expires_at
    assert last.closed


def test_no_capacity_ends_the_order_and_fewer_gpu_workers_are_asked_for(new_world):
    """The order is over for nothing, and is no error; the next has another name."""
    world = new_world("no_capacity")

    progress = world.run_to_the_end()

    first = next(entry for entry in world.entries if isinstance(entry, Ended))
    assert (first.reason, first.failure, first.spent_usd) == ("no l4 is free", Failure.NO_CAPACITY, 0.0)
    orders = [entry.order for entry in world.entries if isinstance(entry, Ordered)]
    assert [order.num_workers for order in orders][:2] == [2, 1]
    assert len({order.name for order in orders}) == len(orders)
    assert progress.is_complete


def test_a_rejected_order_drops_its_offer(new_world):
    """Asking again would fail alike: closed with the platform's words; a resume asks again, it may be corrected."""
    world = new_world("rejected")

    progress = world.run_to_the_end()

    assert world.platform.num_starts == 1
    assert progress.closed.startswith("fake refuses: ")
    assert "is not a request we understand" in progress.closed
    assert world.run_to_the_end().is_complete


def test_where_one_offer_is_rejected_another_is_used(new_world):
    """The dearer one, and the first is never asked for again."""
    offers = [an_offer(gpu="t4", usd_per_hour=0.1), an_offer(gpu="l4")]
    world = new_world("rejected", offers=offers)

    progress = world.run_to_the_end()

    assert progress.is_complete
    assert [entry.order.offer.gpu for entry in world.entries if isinstance(entry, Ordered)] == ["t4", "l4"]


def test_a_platform_that_rejects_two_offers_is_asked_no_more(new_world):
    """It is not the GPU type, then; the third is left alone."""
    world = new_world("rejected", "rejected", offers=[an_offer(gpu=gpu) for gpu in ("t4", "l4", "h100")])

    progress = world.run_to_the_end()

    assert world.platform.num_starts == 2
    assert progress.closed.startswith("fake refuses: ")


def test_gpu_jobs_that_get_nothing_done_close_the_campaign(new_world):
    """After three of them, with the last one's reason, and nothing runs."""
    world = new_world()

    def fail():
        for job in world.platform.jobs:
            world.platform.fail(job.order.name, "out of memory", "CUDA error")

    progress = world.run_to_the_end(act=fail)

    assert len(world.platform.jobs) == POLICY.max_idle_jobs
    assert progress.closed.startswith("3 GPU jobs in a row got nothing done")
    assert "out of memory" in progress.closed
    assert not progress.is_complete
    assert [job.log for job in progress.jobs] == ["CUDA error"] * 3


@pytest.mark.parametrize(
    ("code", "own", "failure"),
    [
        (Failure.USER_CODE, None, Failure.USER_CODE),
        (None, None, Failure.UNKNOWN),
        (Failure.PREEMPTED, Failure.USER_CODE, Failure.USER_CODE),
    ],
)
def test_no_words_of_a_users_drop_a_platform(new_world, code, own, failure):
    """What its code says stands in reason, log and heartbeat; the platform's code and the GPU worker's own decide."""
    world = new_world()
    words = "no image found: quota of model credits exceeded, timed out, evicted"

    def fail():
        for job in world.platform.jobs:
            name = job.order.name
            if not job.phase.is_over:
                gpu = FakeGpuWorker(
                    world.store, world.plan, POLICY, worker_id=f"boot-{name}", monotonic=FakeClock(), order=name
                )
                gpu.beat("over", words, own)
                world.platform.fail(name, words, words, code)

    progress = world.run_to_the_end(act=fail)

    ends = [entry for entry in world.entries if isinstance(entry, Ended)]
    assert [end.failure for end in ends] == [failure] * POLICY.max_idle_jobs
    assert progress.closed.startswith("3 GPU jobs in a row got nothing done")


def test_work_that_gets_on_is_never_called_broken(new_world):
    """GPU jobs that do one chunk and die are followed by others until all is done."""
    world = new_world()
    policy = replace(POLICY, max_idle_jobs=1, max_workers=1)

    progress = world.run_to_the_end(policy, act=lambda: world.work(max_chunks=1))

    assert progress.is_complete
    assert [entry.items_done for entry in world.entries if isinstance(entry, Ended)] == [2, 2, 2]


def test_a_new_orchestrator_adopts_the_jobs_of_a_dead_one(new_world):
    """It died between the start and the next look; its GPU job is found by name and waited for."""
    world = new_world()
    dead = world.run()
    next(dead)

    progress = world.run_to_the_end()

    assert progress.is_complete
    assert world.platform.num_starts == 1
    with pytest.raises(SupersededError):
        next(dead)


def test_resuming_a_complete_campaign_starts_nothing(new_world):
    """One look, closed again, no order."""
    world = new_world()
    world.run_to_the_end()

    (progress,) = world.run()

    assert progress.is_complete
    assert (progress.items_done, progress.jobs) == (6, ())
    assert world.platform.num_starts == 1


def test_a_budget_that_is_too_small_starts_nothing(new_world):
    """Closed with both sums in the reason; a resume with more goes on."""
    world = new_world(offers=[an_offer(usd_per_hour=1.0)])

    progress = world.run_to_the_end(replace(POLICY, budget_usd=0.4, job_hours=1.0))

    assert progress.closed == "$2.33 for 2 GPU workers exceed the $0.40 left of the budget"
    assert world.platform.num_starts == 0
    assert world.run_to_the_end(replace(POLICY, budget_usd=3.0, job_hours=1.0)).is_complete


def test_progress_never_falls_and_ends_at_all_items(new_world):
    """What people see of a campaign only grows."""
    world = new_world()

    done = []
    for progress in world.run(replace(POLICY, max_workers=1)):
        done.append(progress.items_done)
        world.work(max_chunks=1)

    assert done == sorted(done)
    assert done[-1] == 6


def test_an_opening_records_the_policy(new_world):
    """GPU workers read it from the journal."""
    world = new_world()
    world.run_to_the_end(replace(POLICY, part_s=7.0))

    first = world.entries[0]
    assert isinstance(first, Opened)
    assert first.policy.part_s == 7.0
    assert world.store.get(keys.journal(1)) is not None
