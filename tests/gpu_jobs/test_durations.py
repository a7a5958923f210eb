"""One way to write a duration, everywhere."""

import math

import pytest

from gpu_jobs.durations import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0001, "0 s"),
        (0.0123, "0.012 s"),
        (0.996, "1 s"),
        (8.4, "8.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (45.4, "45 s"),
        (59.6, "1 min"),
        (65, "1 min 05 s"),
        (80, "1 min 20 s"),
        (3599.6, "1 h"),
        (7500, "2 h 05 min"),
        (86_399, "1 d"),
        (100_000, "1 d 4 h"),
        (-90, "-90 s"),
        (-3, "-3 s"),
        (math.inf, "forever"),
    ],
)
def test_a_duration_carries_its_rounding(seconds, text):
    """No sixty seconds, no sixty minutes, no twenty-four hours."""
    assert duration(seconds) == text
