"""Two flow runs on one campaign, and interrupted ones: no GPU job is lost, doubled, or stopped by another."""

import pytest

from gpu_jobs.errors import SupersededError
from gpu_jobs.jobs.orders import Phase
from gpu_jobs.ledger.journal import Journal, Ordered
from gpu_jobs.testing import a_policy

POLICY = a_policy(max_workers=2)


def test_the_older_of_two_flow_runs_gives_way(new_world):
    """It learns it at its next look, and the GPU jobs go on under the newer one."""
    world = new_world()
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


def test_an_interrupted_flow_run_leaves_its_successors_jobs_alone(new_world):
    """Cancelled after another has taken over, it stops nothing and closes nothing."""
    world = new_world()
    older = world.run()
    next(older)
    newer = world.run()
    next(newer)

    older.close()

    assert [job.num_stops for job in world.platform.jobs] == [0]
    assert world.kinds() == ["opened", "ordered", "opened"]
    newer.close()


def test_two_flow_runs_in_the_middle_of_one_another(new_world):
    """At whichever call to the store the second comes in, one gives way and no GPU worker is ordered twice."""
    for calls in range(1, 30):
        world = new_world()
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
def test_an_exception_into_the_iterator_stops_everything(new_world, error):
    """All GPU jobs are stopped and noted, the campaign is closed, and it can be resumed."""
    world = new_world()
    looks = world.run()
    next(looks)

    with pytest.raises(error):
        looks.throw(error)

    assert world.kinds() == ["opened", "ordered", "closed", "ended"]
    assert [job.phase for job in world.platform.jobs] == [Phase.STOPPED]
    assert Journal(world.store).read().closed.reason == f"interrupted by {error.__name__}"
    assert world.run_to_the_end().is_complete


def test_closing_the_iterator_stops_everything_too(new_world):
    """As a flow that returns early does."""
    world = new_world()
    looks = world.run()
    next(looks)

    looks.close()

    assert [job.phase for job in world.platform.jobs] == [Phase.STOPPED]
