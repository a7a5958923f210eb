"""H.264 of which two packets may be one frame."""

import av
import pytest

from gpu_jobs.workloads.video import decode
from gpu_jobs.workloads.video.fields import may_be_fields
from tests.gpu_jobs.workloads.video import clips, field_pictures
from tests.gpu_jobs.workloads.video.seeing import assert_all_are_seen

NUM = 120


@pytest.mark.parametrize("name", ["a.ts", "a.mp4", "a.mkv"])
@pytest.mark.parametrize("is_whole", [lambda _: False, lambda at: at < NUM // 2], ids=["fields", "frames, then fields"])
def test_two_fields_are_one_frame(tmp_path, monkeypatch, name, is_whole):
    """Broadcasts: positions, times and pictures are those of frames, and nothing is missing."""
    monkeypatch.setattr(decode, "COUNTED_S", 0.0)
    raw = tmp_path / "raw.h264"
    raw.write_bytes(field_pictures.stream(NUM, is_whole=is_whole))
    at = 0

    def stamp(number, packet):
        nonlocal at
        duration = packet.duration  # half a frame's for a field
        packet.pts = packet.dts = at
        at += duration

    path = clips.remux(raw, tmp_path / name, stamp)

    assert_all_are_seen(path, times=[at / field_pictures.RATE for at in range(NUM)])


@pytest.mark.parametrize(
    ("options", "pixels", "expected"),
    [
        ({}, "yuv420p", False),
        ({"x264-params": "cqm=jvt"}, "yuv420p", False),
        ({"x264-params": "cqm=jvt"}, "yuv444p", False),
        ({"flags": "+ilme+ildct"}, "yuv420p", True),
        ({"flags": "+ilme+ildct", "x264-params": "cqm=jvt"}, "yuv444p", True),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_headers_tell_whether_there_may_be_fields(tmp_path, name, options, pixels, expected):
    path = clips.write(tmp_path / name, num_frames=5, options={"g": "25"} | options, pixels=pixels)

    with av.open(str(path)) as found:
        assert may_be_fields(found.streams.video[0].codec_context.extradata) is expected


@pytest.mark.parametrize("extradata", [None, b"", b"\1", b"\0\0\0\1\x67", b"\0\0\1\x68\xce"])
def test_headers_that_cannot_be_read_allow_fields(extradata):
    assert may_be_fields(extradata)


def test_interlaced_frames_keep_the_fast_way(tmp_path):
    """One packet is one frame, so segments are decoded from keyframes."""
    path = clips.write(tmp_path / "a.ts", options={"g": "25", "flags": "+ilme+ildct"})

    assert not decode.probe(path).is_counted
