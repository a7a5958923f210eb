"""Times of frames whose own timestamps cannot be trusted."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpu_jobs.workloads.video.packets import NO_PTS

_REORDER_FRAMES = 16
"""A timestamp that goes back by less than this many frames is out of order; by more, the clock has started anew."""
_UNEVEN_FRAMES = 3


def in_order(stamps: Sequence[int], ticks: int, *, longest_gap: int = 0, is_even: bool = False) -> NDArray[np.int64]:
    """Return rising times for frames in presentation order.

    Where timestamps go to and fro (AVI), the n-th frame gets the n-th smallest. Where the clock starts anew (joined
    transport streams), the next frame follows the one before it.

    Args:
        stamps: the frames' own timestamps; `NO_PTS` where there is none.
        ticks: the usual time between two frames.
        longest_gap: a longer pause is a jump of the clock; 0: pauses may have any length.
        is_even: times that are only a few frames off an even rate are put there.
    """
    filled: list[int] = []
    for stamp in stamps:
        filled.append(stamp if stamp != NO_PTS else filled[-1] + ticks if filled else 0)
    raw = np.array(filled, dtype=np.int64)
    sections = np.split(raw, np.flatnonzero(_jumps(raw, ticks, longest_gap)) + 1)
    found: list[NDArray[np.int64]] = []
    for section in sections:
        rising = np.sort(section)
        even = rising[0] + np.arange(len(rising), dtype=np.int64) * ticks
        if is_even and np.abs(even - rising).max() <= _UNEVEN_FRAMES * ticks:
            rising = even
        if found:
            rising = rising - rising[0] + found[-1][-1] + ticks
        found.append(rising)
    return np.concatenate(found)


def _jumps(raw: NDArray[np.int64], ticks: int, longest_gap: int) -> NDArray[np.bool_]:
    """Whether the clock jumps between each frame and the next: backwards, or further than a pause may last."""
    steps = np.diff(raw)
    return (steps < -_REORDER_FRAMES * ticks) | (longest_gap > 0) & (steps > longest_gap)
