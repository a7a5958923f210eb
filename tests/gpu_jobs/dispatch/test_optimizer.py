"""The mix of GPU workers by itself: what a plan keeps, and what it takes when few are enough."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gpu_jobs.dispatch.optimizer import Source, Task, best_mix


def a_source(name, *, is_new, most=4, ready_s=0.0, items_per_s=1.0, usd_per_s=1.0):
    return Source(
        name=name, is_new=is_new, platform=name, most=most, ready_s=ready_s, items_per_s=items_per_s,
        usd_per_s=usd_per_s,
    )  # fmt: skip


def test_a_plan_that_keeps_who_lives_reckons_with_all_of_them():
    """They work and cost until they are stopped, though the cheap ones could do it alone."""
    cheap, dear = a_source("cheap", is_new=False), a_source("dear", is_new=False, usd_per_s=9.0)
    new = a_source("new", is_new=True)
    task = Task(items=1000.0, max_workers=12, platform_most={}, latest_s=None)

    kept = best_mix([cheap, dear, new], replace(task, keeps_alive=True), "cheapest")
    free = best_mix([cheap, dear, new], task, "cheapest")

    assert kept is not None
    assert (kept.of(cheap), kept.of(dear)) == (4, 4)
    assert free is not None
    assert free.of(dear) == 0


@given(items=st.floats(10, 1e5), items_per_s=st.floats(0.01, 100))
def test_one_at_work_goes_on_alone_where_others_are_dear(items, items_per_s):
    """However the numbers round at the latest finish time that is tried."""
    cheap = a_source("cheap", is_new=False, most=1, items_per_s=items_per_s)
    dear = a_source("dear", is_new=True, items_per_s=items_per_s, usd_per_s=9.0)

    mix = best_mix([cheap, dear], Task(items=items, max_workers=4, platform_most={}, latest_s=None), "cheapest")

    assert mix is not None
    assert mix.covers
    assert mix.counts == ((cheap, 1),)
