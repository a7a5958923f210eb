"""How long items took: counts in logarithmic steps of 12 %. They are small, and those of many GPU workers add up."""

import math
from collections.abc import Iterable, Mapping

_STEPS_PER_DECADE = 20
_LEAST_S = 1e-6

Counts = Mapping[int, int]
"""Number of items by step."""


def step_of(seconds: float) -> int:
    """The step that a duration falls into: step n holds 10^(n/20) to 10^((n+1)/20) seconds."""
    return math.floor(_STEPS_PER_DECADE * math.log10(max(seconds, _LEAST_S)))


def added(many: Iterable[Counts]) -> dict[int, int]:
    total: dict[int, int] = {}
    for counts in many:
        for step, items in counts.items():
            total[step] = total.get(step, 0) + items
    return total


def quantile_s(counts: Counts, share: float) -> float | None:
    """Seconds within which `share` of the items were done, rounded up to a step; None if there are no items."""
    left = share * sum(counts.values())
    for step in sorted(counts):
        left -= counts[step]
        if left <= 0:
            return 10 ** ((step + 1) / _STEPS_PER_DECADE)
    return None
