"""The loop that orders GPU jobs, follows them, and gives way: on a fake platform and a store in memory."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gpu_jobs import layout
from gpu_jobs.campaign import Campaign, check
from gpu_jobs.errors import RefusedError, SupersededError
from gpu_jobs.jobs import Phase
from gpu_jobs.journal import Ended, Journal, Opened, Ordered
from gpu_jobs.split import CampaignSpec
from gpu_jobs.testing import FakeClock, FakeGpuWorker, FakePlatform, MemoryStore, a_policy, an_offer, plan_campaign

POLICY = a_policy(max_workers=2)
MAX_LOOKS = 200


class World:
    """A campaign of six items in three chunks, and a platform whose GPU workers do as the test says."""

    def __init__(self, *faults, **platform):
        self.store = MemoryStore()
        self.plan = plan_campaign(self.store)
        self.platform = FakePlatform(*faults, **platform)
        self.num_boots = 0

    def run(self, policy=POLICY):
        """A flow run of its own: nothing is shared but the store and the platform."""
        return Campaign(self.store, self.plan).run(policy, [self.platform], tick_s=0)

    def work(self, max_chunks=None):
        """All GPU workers that have started do their work, or so many chunks each, and exit."""
        for job in self.platform.jobs:
            if job.phase is Phase.STARTING:
                self.platform.run(job.order.name)
                self.num_boots += 1
                gpu = FakeGpuWorker(
                    self.store,
                    self.plan,
                    POLICY,
                    boot=f"boot-{self.num_boots}",
                    monotonic=FakeClock(),
                    order=job.order.name,
                )
                if max_chunks is None:
                    gpu.work_on()
                for _ in range(max_chunks or 0):
                    gpu.work_through(gpu.lease())
                gpu.beat("over", "nothing is left to lease")
                self.platform.finish(job.order.name)

    def run_to_the_end(self, policy=POLICY, act=None):
        """The last progress of a flow run, with `act` after every look."""
        for number, progress in enumerate(self.run(policy)):
            assert number < MAX_LOOKS
            (act or self.work)()
        return progress

    @property
    def entries(self):
        return Journal(self.store).read().entries

    def kinds(self):
        return [entry.kind for entry in self.entries]


def test_a_campaign_is_done_by_one_gpu_job():
    """Ordered once, worked through, ended and closed, with everybody's items counted."""
    world = World()

    progress = world.run_to_the_end()

    assert world.kinds() == ["opened", "ordered", "ended", "closed"]
    assert (progress.is_complete, progress.closed, progress.items_done) == (True, "every item is settled", 6)
    assert len(world.platform.jobs) == 1
    (job,) = progress.jobs
    assert (job.status, job.items_done, job.workers) == ("succeeded", 6, 2)


def test_the_order_is_in_the_journal_before_the_platform_hears_of_it():
    """Order before effect, with its dollars and its expiry."""
    world = World()
    known = []
    world.platform.on_start = lambda order: known.append(
        [entry.order for entry in world.entries if isinstance(entry, Ordered)] == [order]
    )

    world.run_to_the_end(replace(POLICY, job_hours=2.0))

    assert known == [True]
    (order,) = Journal(world.store).read().orders.values()
    assert order.order.reserved_usd == pytest.approx(2 * 2.0 * 0.36)
    assert order.order.expires_at - order.at == timedelta(hours=2)


def test_no_gpu_job_outlives_the_deadline():
    """Its expiry is the deadline if that comes first."""
    world = World()
    deadline = datetime.now(UTC) + timedelta(minutes=5)

    world.run_to_the_end(replace(POLICY, deadline=deadline))

    assert world.platform.jobs[0].order.expires_at == deadline


@pytest.mark.parametrize("find_lag_s", [0.0, 60.0])
def test_a_gpu_job_whose_start_reply_was_lost_is_adopted(find_lag_s):
    """It is found by its name, at once or when the platform's listing catches up; there is no second one."""
    clock = FakeClock()
    world = World("reply_lost", find_lag_s=find_lag_s, clock=clock)

    def wait_then_work():
        clock.pass_time(25)
        if clock.now_s - world.platform.jobs[0].started_s > find_lag_s:
            world.work()

    progress = world.run_to_the_end(act=wait_then_work)

    assert progress.is_complete
    assert (world.platform.num_starts, len(world.platform.jobs)) == (1, 1)


def test_an_order_whose_request_was_lost_is_ended_and_ordered_again():
    """When the platform would have to know of it and does not, it is noted as over, for nothing."""
    world = World("request_lost")

    progress = world.run_to_the_end()

    lost, done = (entry for entry in world.entries if isinstance(entry, Ended))
    assert (lost.reason, lost.spent_usd) == ("not to be found on its platform", 0.0)
    assert done.items_done == 6
    assert progress.is_complete


def test_an_order_within_the_find_lag_is_not_given_up():
    """A listing that lags proves nothing: no second GPU job is ordered meanwhile."""
    world = World("reply_lost", find_lag_s=1e6)
    looks = world.run()

    seen = [next(looks) for _ in range(10)]
    world.platform.find_lag_s = 0.0
    looks.close()

    assert world.platform.num_starts == 1
    assert {progress.jobs[0].status for progress in seen[1:]} == {"pending"}


def test_no_capacity_ends_the_order_and_another_is_tried():
    """The order is over for nothing, the next has another name."""
    world = World("no_capacity", "rejected")

    progress = world.run_to_the_end()

    ends = [(entry.reason, entry.spent_usd) for entry in world.entries if isinstance(entry, Ended)][:2]
    assert ends[0] == ("no l4 is free", 0.0)
    assert "is not a request we understand" in ends[1][0]
    assert progress.is_complete
    assert len({entry.order.name for entry in world.entries if isinstance(entry, Ordered)}) == 3


def test_gpu_jobs_that_get_nothing_done_close_the_campaign():
    """After three of them, with the last one's reason, and nothing runs."""
    world = World()

    def fail():
        for job in world.platform.jobs:
            world.platform.fail(job.order.name, "out of memory", "CUDA error")

    progress = world.run_to_the_end(act=fail)

    assert len(world.platform.jobs) == POLICY.max_idle_jobs
    assert progress.closed.startswith("3 GPU jobs in a row got nothing done")
    assert "out of memory" in progress.closed
    assert not progress.is_complete
    assert [job.log for job in progress.jobs] == ["CUDA error"] * 3


def test_work_that_gets_on_is_never_called_broken():
    """GPU jobs that do one chunk and die are followed by others until all is done."""
    world = World()
    policy = replace(POLICY, max_idle_jobs=1, max_workers=1)

    progress = world.run_to_the_end(policy, act=lambda: world.work(max_chunks=1))

    assert progress.is_complete
    assert [entry.items_done for entry in world.entries if isinstance(entry, Ended)] == [2, 2, 2]


def test_the_older_of_two_flow_runs_gives_way():
    """It learns it at its next look, and the GPU jobs go on under the newer one."""
    world = World()
    older = world.run()
    next(older)
    newer = world.run()
    next(newer)

    with pytest.raises(SupersededError):
        next(older)

    assert [job.num_stops for job in world.platform.jobs] == [0]
    assert len([entry for entry in world.entries if isinstance(entry, Ordered)]) == 1
    world.work()
    assert [progress.is_complete for progress in newer][-1]


def test_an_interrupted_flow_run_leaves_its_successors_jobs_alone():
    """Cancelled after another has taken over, it stops nothing and closes nothing."""
    world = World()
    older = world.run()
    next(older)
    newer = world.run()
    next(newer)

    older.close()

    assert [job.num_stops for job in world.platform.jobs] == [0]
    assert world.kinds() == ["opened", "ordered", "opened"]
    newer.close()


def test_two_flow_runs_in_the_middle_of_one_another():
    """At whichever call to the store the second comes in, one gives way and no GPU worker is ordered twice."""
    for calls in range(1, 30):
        world = World()
        runs = [world.run(), world.run()]
        superseded = []

        def look(number, runs=runs, superseded=superseded):
            try:
                next(runs[number], None)
            except SupersededError:
                superseded.append(number)

        has_come = come_in(world.store, calls, lambda look=look: look(1))
        while not has_come:
            look(0)
        for number in (0, 1, 0, 1):
            look(number)

        wanted = sum(order.num_workers for order in Journal(world.store).read().live_orders)
        assert (len(superseded), wanted, len(world.platform.jobs)) == (1, POLICY.max_workers, 1)
        runs[1 - superseded[0]].close()


def come_in(store, calls, act):
    """Do `act` in the middle of somebody's work, at so many calls to the store from now; returns whether it was."""
    seen, has_come = [], []

    def before(_method, _key):
        seen.append(1)
        if len(seen) == calls:
            has_come.append(True)
            store.before = lambda _method, _key: None
            act()

    store.before = before
    return has_come


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_into_the_iterator_stops_everything(error):
    """All GPU jobs are stopped and noted, the campaign is closed, and it can be resumed."""
    world = World()
    looks = world.run()
    next(looks)

    with pytest.raises(error):
        looks.throw(error)

    assert world.kinds() == ["opened", "ordered", "closed", "ended"]
    assert [job.phase for job in world.platform.jobs] == [Phase.STOPPED]
    assert Journal(world.store).read().closed.reason == f"interrupted by {error.__name__}"
    assert world.run_to_the_end().is_complete


def test_closing_the_iterator_stops_everything_too():
    """As a flow that returns early does."""
    world = World()
    looks = world.run()
    next(looks)

    looks.close()

    assert [job.phase for job in world.platform.jobs] == [Phase.STOPPED]


def test_a_new_orchestrator_adopts_the_jobs_of_a_dead_one():
    """It died between the start and the next look; its GPU job is found by name and waited for."""
    world = World()
    dead = world.run()
    next(dead)

    progress = world.run_to_the_end()

    assert progress.is_complete
    assert world.platform.num_starts == 1
    with pytest.raises(SupersededError):
        next(dead)


def test_resuming_a_complete_campaign_starts_nothing():
    """One look, closed again, no order."""
    world = World()
    world.run_to_the_end()

    (progress,) = world.run()

    assert progress.is_complete
    assert (progress.items_done, progress.jobs) == (6, ())
    assert world.platform.num_starts == 1


def test_a_budget_that_is_too_small_starts_nothing():
    """Closed with both sums in the reason; a resume with more goes on."""
    world = World(offers=[an_offer(usd_per_hour=1.0)])

    progress = world.run_to_the_end(replace(POLICY, budget_usd=1.0, job_hours=1.0))

    assert progress.closed == "$2.00 for 2 GPU workers exceed the $1.00 left of the budget"
    assert world.platform.num_starts == 0
    assert world.run_to_the_end(replace(POLICY, budget_usd=3.0, job_hours=1.0)).is_complete


def test_progress_never_falls_and_ends_at_all_items():
    """What people see of a campaign only grows."""
    world = World()

    done = []
    for progress in world.run(replace(POLICY, max_workers=1)):
        done.append(progress.items_done)
        world.work(max_chunks=1)

    assert done == sorted(done)
    assert done[-1] == 6


SPEC = CampaignSpec(store_root="/here/store", dataset="/here/data", workload="noop")
REMOTE = {"store_root": "gs://there/store", "dataset": "gs://there/data"}
LOCAL = a_policy(platforms=("local",))
NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("spec", "policy", "field"),
    [
        ({}, {"budget_usd": -1.0}, "budget_usd"),
        ({}, {"deadline": NOW}, "deadline"),
        ({}, {"max_workers": 0}, "max_workers"),
        ({"chunk_weight": 0.0}, {}, "chunk_weight"),
        ({}, {"platforms": ()}, "platforms"),
        ({"dataset": "gs://there/data"}, {"platforms": ("local", "modal")}, "store_root"),
        ({"store_root": "gs://there/store"}, {"platforms": ("modal",)}, "dataset"),
        ({**REMOTE, "dataset": ["gs://there/data", "/here/data"]}, {"platforms": ("modal",)}, "dataset"),
    ],
)
def test_what_cannot_work_is_refused_by_field(spec, policy, field):
    """Before anything is read or written, with the name of what to change."""
    with pytest.raises(RefusedError) as refused:
        check(replace(SPEC, **spec), replace(LOCAL, **policy), NOW)

    assert refused.value.field == field
    assert str(refused.value).startswith(f"{field}: ")


@pytest.mark.parametrize("spec", [{}, REMOTE])
def test_what_can_work_is_not_refused(spec):
    """A local platform takes both kinds of place, and a deadline in the future."""
    check(replace(SPEC, **spec), replace(LOCAL, deadline=NOW + timedelta(seconds=1), budget_usd=0.0), NOW)


def test_an_opening_records_the_policy():
    """GPU workers read it from the journal."""
    world = World()
    world.run_to_the_end(replace(POLICY, part_s=7.0))

    first = world.entries[0]
    assert isinstance(first, Opened)
    assert first.policy.part_s == 7.0
    assert world.store.get(layout.journal(1)) is not None
