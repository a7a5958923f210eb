"""What is left of a budget."""

import pytest

from gpu_jobs.jobs.costs import left_usd


@pytest.mark.parametrize(
    ("budget_usd", "spent_usd", "reserved_usd", "expected"),
    [(None, 9.0, 9.0, None), (10.0, 2.0, 0.0, 8.0), (10.0, 2.0, 5.0, 3.0), (10.0, 8.0, 5.0, 0.0)],
)
def test_what_is_set_aside_is_not_left(budget_usd, spent_usd, reserved_usd, expected):
    """And a budget that is overdrawn has nothing left."""
    assert left_usd(budget_usd, spent_usd=spent_usd, reserved_usd=reserved_usd) == expected
