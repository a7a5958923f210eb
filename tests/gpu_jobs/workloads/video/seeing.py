"""What the workload sees of a video, and what a decoder shows of it from its start."""

import av
import numpy as np
import pytest

from gpu_jobs.dataset.sources import read_sources
from gpu_jobs.errors import ItemError
from gpu_jobs.workloads import load_workload
from gpu_jobs.workloads.video import shots


class NoModel:
    def prepare(self, picture):
        return picture.rgb(32, 32)


def seen(path, segment_s):
    """What the models get of a video: (small picture by position, samples, problems), context left out."""
    workload = load_workload("video", {"segment_s": segment_s})
    workload._frames = NoModel()
    small, samples, problems = {}, [], []
    for item in workload.items(read_sources(str(path), suffixes=workload.suffixes)):
        try:
            loaded = workload.load(item)
        except ItemError as error:
            problems.append(str(error))
            continue
        missing = {shown.at for shown in loaded.missing}
        for at in range(item["start"], item["stop"]):
            if at not in missing:
                small[at] = (loaded.windows[at - item["start"] + shots.CONTEXT], loaded.starts_s[at])
        samples += [(at, time_s) for at, time_s, _ in loaded.samples]
        problems += [loaded.problem] * bool(missing)
    return small, samples, problems


def shown_by_decoder(path, num=0):
    """Small pictures in the decoder's order."""
    with av.open(str(path)) as found:
        stream = found.streams.video[num]
        return [
            frame.reformat(48, 27, "rgb24", interpolation="BILINEAR").to_ndarray() for frame in found.decode(stream)
        ]


def assert_all_are_seen(path, *, times, expected=None):
    """Every frame once, in the decoder's order, at its time, whatever the segments; returns the samples."""
    expected = shown_by_decoder(path) if expected is None else expected
    found = {segment_s: seen(path, segment_s) for segment_s in (2, 600)}
    for small, _, problems in found.values():
        assert problems == []
        assert list(small) == list(range(len(expected)))
        for at, picture in enumerate(expected):
            np.testing.assert_array_equal(small[at][0], picture)
        assert [time_s for _, time_s in small.values()] == pytest.approx(times, abs=1e-3)
    assert found[2][1] == found[600][1]
    return found[600][1]
