"""Shots from transition scores: what segments see is put together as if there had been one."""

from itertools import pairwise

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from gpu_jobs.ledger import rows
from gpu_jobs.workloads import load_workload
from gpu_jobs.workloads.video import shots
from gpu_jobs.workloads.video.decode import Segment
from gpu_jobs.workloads.video.loaded import LoadedSegment
from gpu_jobs.workloads.video.workload import _shot_rows

WORKLOAD = load_workload("video", {"analyses": ["shots"]})


def segment(start, stop, num_frames):
    nowhere = {"context": 25, "seek_frame": 0, "seek_pts": 0, "end_pts": 0, "origin_pts": 0, "tick_num": 1}
    return Segment(start=start, stop=stop, num_frames=num_frames, **nowhere, tick_den=1, video_end_s=float(num_frames))


def find_shots(scores_by_video, borders, lost=()):
    """Shots as they are published if every video is cut at `borders`; a second is a frame here.

    `lost`: (video, start) of segments that could not be used.
    """
    found, index = [], 0
    for video, scores in scores_by_video.items():
        edges = [0, *sorted(border for border in borders if border < len(scores)), len(scores)]
        for start, stop in pairwise(edges):
            times = {at: float(at) for at in range(start, stop + 1)}
            loaded = LoadedSegment(video=video, segment=segment(start, stop, len(scores)), starts_s=times)
            outcome = list(_shot_rows(loaded, shots.transitions(np.array(scores[start:stop]), 0.5)))
            if (video, start) in lost:
                continue
            found += rows.item_rows(index, f"{video}#{start}", outcome)
            index += 1
    frame = pl.DataFrame(found, schema=rows.schema(WORKLOAD.columns)).filter(pl.col("outcome") == rows.ROW)
    finished = WORKLOAD.finish(frame.lazy()).collect()
    return finished.select("video", "frame", "start_s", "end_s", "score", "transition_frames").rows()


def test_transition_across_a_border_is_one():
    """Frames 1, 2, 3 are a dissolve, cut in the middle: one shot behind it, with the higher of two scores."""
    scores = [0.1, 0.6, 0.7, 0.9, 0.1, 0.1]

    found = find_shots({"v": scores}, borders=[2])

    assert [row[1:4] for row in found] == [(0, 0, 4), (4, 4, 6)]
    assert [row[5] for row in found] == [0, 3]
    assert round(found[1][4], 6) == 0.9


def test_transition_at_an_end_of_the_video_makes_no_shot():
    assert [row[1:4] for row in find_shots({"v": [0.9, 0.9, 0.1, 0.9]}, borders=[])] == [(0, 0, 4)]


def test_videos_do_not_touch():
    """The last transition of one and the first of the next are not one, nor is a shot's end the other's start."""
    found = find_shots({"a": [0.1, 0.1, 0.9], "b": [0.9, 0.1, 0.9, 0.1]}, borders=[])

    assert [row[:4] for row in found] == [("a", 0, 0, 3), ("b", 0, 0, 3), ("b", 3, 3, 4)]


def test_video_whose_start_is_lost_does_not_go_on_with_the_one_before():
    """Video a's last transition ends at frame 3, where that of b's first usable segment begins."""
    scores = {"a": [0.1, 0.1, 0.9], "b": [0.1, 0.1, 0.1, 0.9, 0.1]}

    found = find_shots(scores, borders=[3], lost=[("b", 0)])

    assert [(*row[:2], row[5]) for row in found] == [("a", 0, 0), ("b", 4, 1)]


@given(
    st.lists(st.lists(st.sampled_from([0.1, 0.6, 0.9]), min_size=1, max_size=12), min_size=1, max_size=3),
    st.sets(st.integers(1, 11)),
)
def test_shots_do_not_depend_on_borders(scores, borders):
    """Borders anywhere, also inside of transitions and of whole segments of nothing else."""
    scores_by_video = dict(zip("abc", scores, strict=False))

    assert find_shots(scores_by_video, borders) == find_shots(scores_by_video, ())
