"""How long items took: a quantile from counts is that of the items themselves, to a step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_jobs.telemetry.latencies import added, quantile_s, step_of

SECONDS = st.lists(st.floats(1e-5, 1e5), min_size=1, max_size=60)


@given(SECONDS, SECONDS, st.sampled_from([0.5, 0.95, 1.0]))
def test_a_quantile_of_several_gpu_workers_is_that_of_all_their_items(ones, others, share):
    """Never less than it is, and at most a step more."""
    counts = added([added({step_of(each): 1} for each in seconds) for seconds in (ones, others)])
    ordered = sorted(ones + others)
    exact = next(each for number, each in enumerate(ordered, 1) if number >= share * len(ordered) - 1e-9)

    assert exact * (1 - 1e-9) <= quantile_s(counts, share) <= exact * 10 ** (1 / 20) * (1 + 1e-9)


def test_without_items_there_is_none():
    """And an item that took no time at all is counted."""
    assert quantile_s({}, 0.95) is None
    assert quantile_s({step_of(0.0): 3}, 0.95) == pytest.approx(1e-6, rel=0.13)
