"""Allocations of GPU workers: what a plan keeps, and what it takes when few are enough."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gpu_jobs.dispatch.optimizer import Candidate, Task, best_allocation


def a_candidate(name, *, is_new, most=4, ready_s=0.0, items_per_s=1.0, usd_per_s=1.0):
    return Candidate(
        name=name, is_new=is_new, platform=name, max_workers=most, ready_s=ready_s, items_per_s=items_per_s,
        usd_per_s=usd_per_s,
    )  # fmt: skip


def test_a_plan_that_keeps_gpu_workers_accounts_for_all_of_them():
    """They work and cost until they are stopped, though the cheap ones could do it alone."""
    cheap, expensive = a_candidate("cheap", is_new=False), a_candidate("expensive", is_new=False, usd_per_s=9.0)
    new = a_candidate("new", is_new=True)
    task = Task(items=1000.0, max_workers=12, platform_max_workers={}, latest_s=None)

    kept = best_allocation([cheap, expensive, new], replace(task, keeps_alive=True), "cheapest")
    free = best_allocation([cheap, expensive, new], task, "cheapest")

    assert kept is not None
    assert (kept.of(cheap), kept.of(expensive)) == (4, 4)
    assert free is not None
    assert free.of(expensive) == 0


@given(items=st.floats(10, 1e5), items_per_s=st.floats(0.01, 100))
def test_one_at_work_goes_on_alone_where_others_are_expensive(items, items_per_s):
    """However the numbers round at the latest finish time that is tried."""
    cheap = a_candidate("cheap", is_new=False, most=1, items_per_s=items_per_s)
    expensive = a_candidate("expensive", is_new=True, items_per_s=items_per_s, usd_per_s=9.0)

    allocation = best_allocation(
        [cheap, expensive], Task(items=items, max_workers=4, platform_max_workers={}, latest_s=None), "cheapest"
    )

    assert allocation is not None
    assert allocation.covers
    assert allocation.counts == ((cheap, 1),)
