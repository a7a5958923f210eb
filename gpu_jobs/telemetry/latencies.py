"""How long items took, counted in steps of an eighth: small, and those of many GPU workers can be added."""

import math
from collections.abc import Iterable, Mapping

_STEPS_PER_DECADE = 20
_LEAST_S = 1e-6

Counts = Mapping[int, int]
"""Items by step."""


def step_of(seconds: float) -> int:
    return math.floor(_STEPS_PER_DECADE * math.log10(max(seconds, _LEAST_S)))


def added(many: Iterable[Counts]) -> dict[int, int]:
    total: dict[int, int] = {}
    for counts in many:
        for step, items in counts.items():
            total[step] = total.get(step, 0) + items
    return total


def quantile_s(counts: Counts, share: float) -> float | None:
    """What so large a share of the items took at most, to an eighth; None: there are none."""
    left = share * sum(counts.values())
    for step in sorted(counts):
        left -= counts[step]
        if left <= 0:
            return 10 ** ((step + 1) / _STEPS_PER_DECADE)
    return None
