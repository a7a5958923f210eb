"""Damage: what is seen beside it is what an undamaged file shows at that time."""

import numpy as np
import pytest

from gpu_jobs.workloads.video import decode
from tests.gpu_jobs.workloads.video import clips
from tests.gpu_jobs.workloads.video.seeing import seen, shown_by_decoder

SIZE = {"g": "25", "b": "2000k"}
H264 = {"g": "25", "crf": "5"}


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    """Also of files that are decoded from their start."""
    monkeypatch.setattr(decode, "COUNTED_S", 0.0)


def assert_what_is_seen_is_right(path, whole):
    """Same rows from one segment and from many, each picture that of its time; returns what one segment gives."""
    (small, samples, problems), (parts, part_samples, _) = (seen(path, each) for each in (600, 2))
    assert list(parts) == list(small)
    assert part_samples == samples
    for at, (picture, time_s) in small.items():
        np.testing.assert_array_equal(picture, whole[round(time_s * clips.RATE)])
        np.testing.assert_array_equal(picture, parts[at][0])
    return small, problems


@pytest.mark.parametrize("count", [1, 40], ids=["one packet", "whole frames"])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", H264 | {"bf": "3"}),
        ("libx264", H264 | {"bf": "0"}),
        ("mpeg2video", SIZE | {"bf": "2"}),
        ("libx265", {"x265-params": "keyint=25:bframes=3:open-gop=0:crf=5:pools=none:frame-threads=1:log-level=none"}),
    ],
    ids=["h264", "h264 without B", "mpeg2", "hevc"],
)
def test_packets_lost_from_a_transport_stream_cost_the_frames_up_to_the_next_keyframe(tmp_path, codec, options, count):
    """Frames that are decoded from damaged ones, or shown while the damaged one is still in the decoder, too."""
    path = clips.write(tmp_path / "a.ts", codec, options=options)
    whole = shown_by_decoder(path)

    small, problems = assert_what_is_seen_is_right(clips.lose_packets(path, count), whole)

    assert len(problems) == 1
    times = [round(time_s * clips.RATE) for _, time_s in small.values()]
    assert set(range(25)) <= set(times)
    assert set(range(80, 98)) <= set(times)


def test_frames_that_are_out_before_the_damage_is_known_are_missing_too(tmp_path):
    """The decoder gives B-frames before the damaged frame that they are decoded from."""
    more = {"x264-params": "b-adapt=0:scenecut=0:b-pyramid=normal"}
    path = clips.write(tmp_path / "a.ts", options={"g": "50", "crf": "2", "bf": "7", **more})
    whole = shown_by_decoder(path)

    small, problems = assert_what_is_seen_is_right(clips.lose_packets(path, 1, share=0.4318), whole)

    assert len(problems) == 1
    assert set(range(51, 100)) <= set(small)


def test_a_decoder_that_does_not_tell_what_it_lacks_is_not_believed(tmp_path):
    """HEVC's leaves in a picture what was in memory."""
    options = {"x265-params": "keyint=25:bframes=0:open-gop=0:crf=20:pools=none:frame-threads=1:log-level=none"}
    path = clips.write(tmp_path / "a.ts", "libx265", options=options)
    whole = shown_by_decoder(path)

    small, problems = assert_what_is_seen_is_right(clips.lose_packets(path, 1, share=0.4), whole)

    assert "data is lost" in problems[0]
    assert set(range(50, 98)) <= set(small)


def test_frames_after_a_damaged_one_are_missing_where_no_times_are(tmp_path):
    """AVI: the frames that are shown before the damaged one but decoded from it are missing too."""
    path = clips.write(tmp_path / "a.avi", "mpeg4", options=SIZE | {"bf": "2", "sc_threshold": "1000000000"})
    whole = shown_by_decoder(path)

    small, problems = assert_what_is_seen_is_right(clips.damage_frame(path, 40), whole)

    gone = sorted(set(range(100)) - set(small))
    assert len(problems) == 1
    assert gone == list(range(gone[0], 51))  # the next keyframe is 51; two before it are decoded after it
    assert 38 <= gone[0] <= 41


def test_half_a_picture_at_the_end_is_missing(tmp_path):
    """Its lower part would be what happened to be in memory."""
    path = clips.write(tmp_path / "a.avi", "rawvideo", options={}, pixels="pal8")
    whole = shown_by_decoder(path)

    small, problems = assert_what_is_seen_is_right(clips.cut(path, 0.605), whole)

    assert 55 < len(small) < 62
    assert problems[-1].endswith("the file is cut short")
