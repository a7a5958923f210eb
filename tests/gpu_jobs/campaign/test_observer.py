"""What people see of a running campaign, look by look."""

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.testing import FakeClock, FakeGpuWorker, a_policy

POLICY = a_policy(max_workers=1)


def test_a_gpu_job_is_seen_from_its_order_to_its_end(new_world):
    """Pending while nothing of it lives, running while it does, and then how it ended."""
    world, seen = new_world(), []
    for progress in world.run(POLICY):
        (job,) = progress.jobs or [None]
        if job is None:
            continue
        seen += [job.status] if job.status not in seen else []
        if seen == ["pending"]:
            world.platform.run(job.order)
        elif seen == ["pending", "running"]:
            gpu = FakeGpuWorker(
                world.store, world.plan, POLICY, worker_id="worker-1", monotonic=FakeClock(), order=job.order
            )
            gpu.work_on()
            gpu.beat("over", "nothing is left to lease")
            world.platform.finish(job.order)

    assert seen == ["pending", "running", "succeeded"]


def test_items_done_never_fall_and_end_at_all_of_them(new_world):
    """Over two GPU jobs, of which the first leaves after one chunk."""
    world, done = new_world(), []
    for progress in world.run(POLICY):
        done.append((progress.items_done, progress.items_left))
        world.work(max_chunks=1)

    assert [items for items, _ in done] == sorted(items for items, _ in done)
    assert done[-1] == (6, 0)
    assert len(Campaign(world.store, world.plan).journal.read().orders) > 1


def test_a_cost_row_bills_no_second_to_a_gpu_job_that_never_lived(new_world):
    """And names what was ordered."""
    world = new_world()
    world.run_to_the_end(POLICY)

    (row,) = Campaign(world.store, world.plan).cost().iter_rows(named=True)

    assert (row["workers"], row["status"], row["items"]) == (1, "succeeded", 6)
    assert row["usd"] >= 0
