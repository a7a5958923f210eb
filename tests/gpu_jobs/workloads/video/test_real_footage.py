"""Odd but real videos: the same rows from one segment and from many, equal to what a decoder shows from the start."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from gpu_jobs.dataset.sources import read_sources
from gpu_jobs.workloads import load_workload
from gpu_jobs.workloads.video import container, decode, shots
from tests.gpu_jobs.workloads.video import clips
from tests.gpu_jobs.workloads.video.seeing import assert_all_are_seen, seen, shown_by_decoder

NUM = 100
QUARTER = {"clockwise": (0, 1, -1, 0), "upside down": (-1, 0, 0, -1), "counter-clockwise": (0, -1, 1, 0)}
MIRRORED = {"left to right": (-1, 0, 0, 1), "top to bottom": (1, 0, 0, -1), "transposed": (0, 1, 1, 0)}
OPEN_GOP = {"x264-params": "keyint=25:min-keyint=25:open-gop=1:scenecut=0:bframes=3:b-adapt=0"}


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    """Also of files that are decoded from their start."""
    monkeypatch.setattr(decode, "COUNTED_S", 0.0)


EVEN = [at / clips.RATE for at in range(NUM)]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "25", "bf": "3"}),
        ("a.mov", "mjpeg", {}),
        ("a.mkv", "libx264", OPEN_GOP),
        ("a.webm", "libvpx-vp9", {"g": "30", "deadline": "realtime", "cpu-used": "8"}),
        ("a.avi", "libx264", {"g": "25", "bf": "3"}),
        ("a.avi", "mjpeg", {}),
        ("a.avi", "mpeg4", {"g": "12", "bf": "2"}),
        ("a.mp4", "mpeg4", {"g": "12", "bf": "2"}),
        ("a.ts", "libx264", {"g": "25", "bf": "3"}),
        ("a.ts", "mpeg2video", {"g": "12", "bf": "2"}),
        ("a.mpg", "mpeg2video", {"g": "12", "bf": "2"}),
        ("a.mpg", "libx264", {"g": "25", "bf": "3"}),
        ("a.flv", "flv", {"g": "25"}),
        ("a.flv", "libx264", {"g": "25", "bf": "3"}),
        ("a.wmv", "wmv2", {"g": "25"}),
    ],
)
def test_each_container_gives_each_frame_once(tmp_path, name, codec, options):
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = clips.write(tmp_path / name, codec, options=options, pixels=pixels)

    samples = assert_all_are_seen(path, times=EVEN)

    assert [at for at, _ in samples] == [0, 25, 50, 75]


@pytest.mark.parametrize("matrix", [*QUARTER.values(), *MIRRORED.values()], ids=[*QUARTER, *MIRRORED])
def test_turned_and_mirrored_clips_are_seen_upright(tmp_path, matrix):
    """Expected: each pixel (x, y) of the stored picture, moved by the matrix of ISO/IEC 14496-12."""
    path = clips.turn(clips.write(tmp_path / "phone.mp4", num_frames=10), matrix)
    a, b, c, d = matrix
    stored = next(clips.pictures(1)).astype(int)
    moved = {}
    for y in range(clips.HEIGHT):
        for x in range(clips.WIDTH):
            moved[a * x + c * y, b * x + d * y] = stored[y, x]
    xs, ys = (sorted({at[axis] for at in moved}) for axis in (0, 1))
    upright = np.array([[moved[x, y] for x in xs] for y in ys])
    expected = upright[:: max(1, len(ys) // 27), :: max(1, len(xs) // 48)].mean(axis=(0, 1))

    workload = load_workload("video", {"analyses": ["shots"]})
    (item,) = workload.items(read_sources(str(path)))
    loaded = workload.load(item)

    window = loaded.windows[shots.CONTEXT].astype(int)
    corners = [upright[0, 0], upright[0, -1], upright[-1, 0], upright[-1, -1]]
    found = [window[0, 0], window[0, -1], window[-1, 0], window[-1, -1]]
    for corner, seen_there in zip(corners, found, strict=True):
        assert np.abs(corner[:2] - seen_there[:2]).max() < 40, (corner, seen_there)
    assert np.abs(window.mean(axis=(0, 1))[:2] - expected[:2]).max() < 20
    small, how = loaded.thumbnails[0]
    assert how.apply(small.to_ndarray(format="rgb24")).shape[:2] == ((240, 160) if a == 0 else (106, 160))


def test_a_slanted_clip_is_refused_by_name(tmp_path):
    path = clips.write(tmp_path / "slanted.mp4", num_frames=10)
    clips.turn(path, (1, 1, -1, 1))

    assert "turned by" in seen(path, 600)[2][0]


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    """PAL, 16:9: 96 x 64 pixels that are 64/45 as wide as high."""
    path = clips.write(tmp_path / "wide.mp4", num_frames=10, sar=Fraction(64, 45))
    workload = load_workload("video", {"analyses": ["shots"]})
    (item,) = workload.items(read_sources(str(path)))

    small, _ = workload.load(item).thumbnails[0]

    assert (small.width, small.height) == (160, 74)


def test_thumbnails_of_long_segments_are_kept_small(tmp_path):
    """Files that are decoded from their start have long segments: uncompressed copies would fill the memory."""
    path = clips.write(tmp_path / "a.avi", "mpeg4", options={"g": "12", "bf": "2"})
    workload = load_workload("video", {"analyses": ["shots"]})
    (item,) = workload.items(read_sources(str(path)))

    thumbnails = workload.load(item).thumbnails

    assert list(thumbnails) == list(range(NUM))
    assert max(map(len, thumbnails.values())) < 160 * 106 // 2
    with Image.open(io.BytesIO(thumbnails[50])) as picture:
        assert picture.size == (160, 106)
        shown = np.asarray(picture.resize((48, 27), Image.Resampling.BOX)).astype(int)
    assert np.abs(shown - shown_by_decoder(path)[50]).mean() < 10


def test_an_edit_list_hides_the_start(tmp_path):
    """As of a lossless trim: the hidden frames are decoded, since others need them, and not seen."""
    path = clips.write(tmp_path / "a.mp4", options={"g": "50", "bf": "2", "sc_threshold": "0"})
    whole = shown_by_decoder(path)
    clips.edit(path, from_frame=30, num_frames=70)

    samples = assert_all_are_seen(path, times=EVEN[:70], expected=whole[30:])

    assert [at for at, _ in samples] == [0, 25, 50]


def test_an_edit_list_hides_the_end(tmp_path):
    """Nothing is missing, so there is no error."""
    path = clips.write(tmp_path / "a.mp4")
    whole = shown_by_decoder(path)
    clips.edit(path, num_frames=60)

    assert_all_are_seen(path, times=EVEN[:60], expected=whole[:60])


def test_decode_times_in_place_of_presentation_times_are_not_believed(tmp_path):
    """As some muxers write them."""

    def forget(_, packet):
        packet.dts -= first_dts
        packet.pts = packet.dts

    whole = clips.write(tmp_path / "a.mp4", options={"bf": "3"})
    with av.open(str(whole)) as found:
        first_dts = next(found.demux(video=0)).dts

    assert_all_are_seen(clips.remux(whole, tmp_path / "copied.mp4", forget), times=EVEN)


def test_frames_that_share_a_time_are_all_seen(tmp_path):
    """Of screen recorders."""

    def share(number, packet):
        if number == 1:
            packet.pts = packet.dts = 0

    path = clips.write(tmp_path / "a.mkv", options={"bf": "0", "g": "10"})

    assert_all_are_seen(clips.remux(path, tmp_path / "first.mkv", share), times=[0, 0, *EVEN[2:]])


def test_pauses_of_a_variable_frame_rate_are_kept(tmp_path):
    """An hour in which nothing moved."""

    def pause(number, packet):
        if number >= 50:
            packet.pts += 3600 * 1000
            packet.dts += 3600 * 1000

    path = clips.remux(clips.write(tmp_path / "a.mkv", options={"bf": "0"}), tmp_path / "paused.mkv", pause)

    assert_all_are_seen(path, times=[*EVEN[:50], *(time_s + 3600 for time_s in EVEN[50:])])


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_joined_transport_streams_play_one_after_the_other(tmp_path, codec):
    """Each has a clock that starts anew."""
    options = {"x265-params": "keyint=25:log-level=none"} if codec == "libx265" else None
    one, two = (clips.write(tmp_path / name, codec, num_frames=50, options=options) for name in ("1.ts", "2.ts"))
    (tmp_path / "cat.ts").write_bytes(one.read_bytes() + two.read_bytes())

    assert_all_are_seen(tmp_path / "cat.ts", times=EVEN)


def test_a_jump_of_continuity_without_loss_loses_nothing(tmp_path):
    path = clips.lose_continuity(clips.write(tmp_path / "a.ts"), loses_data=False)

    assert_all_are_seen(path, times=EVEN)


def test_the_better_of_two_streams_is_read(tmp_path):
    """As FFmpeg chooses: a small preview stream comes first in some recordings."""
    path = tmp_path / "two.ts"
    with av.open(str(path), "w") as both:
        streams = []
        for size in ((48, 32), (clips.WIDTH, clips.HEIGHT)):
            stream = both.add_stream("libx264", rate=clips.RATE)
            (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
            streams.append(stream)
        for picture in clips.pictures(NUM):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture).reformat(stream.width, stream.height, "yuv420p")
                both.mux(stream.encode(frame))
        for stream in streams:
            both.mux(stream.encode(None))

    assert_all_are_seen(path, times=EVEN, expected=shown_by_decoder(path, 1))


@pytest.mark.parametrize(
    ("name", "codec", "more"),
    [
        ("a.mp4", "libx264", {"movflags": "faststart"}),
        ("a.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mkv", "libx264", {}),
        ("a.webm", "libvpx", {}),
        ("a.avi", "mjpeg", {}),
        ("a.flv", "flv", {}),
        ("a.wmv", "wmv2", {}),
        ("a.ts", "libx264", {}),
    ],
    ids=["mp4", "fragments", "mkv", "webm", "avi", "flv", "wmv", "ts"],
)
def test_a_file_that_is_cut_short_gives_what_is_there_and_says_so(tmp_path, name, codec, more):
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = clips.cut(clips.write(tmp_path / name, codec, pixels=pixels, container_options=more))

    (small, samples, problems), (parts, part_samples, part_problems) = (seen(path, each) for each in (600, 2))

    assert 40 < len(small) < 80
    assert list(parts) == list(small)
    assert samples == part_samples
    assert problems[-1].endswith("the file is cut short")
    assert part_problems[-1] == problems[-1]


def test_a_lost_packet_costs_the_frames_up_to_the_next_keyframe(tmp_path):
    """Rows before it, rows after it, and one error that says from when to when."""
    path = clips.lose_continuity(
        clips.write(tmp_path / "a.ts", options={"g": "20", "bf": "0", "sc_threshold": "0"}), loses_data=True
    )

    (small, samples, problems), (parts, part_samples, _) = (seen(path, each) for each in (600, 2))

    gone = sorted(set(range(NUM)) - set(small))
    assert 0 < len(gone) <= 20
    assert gone == list(range(gone[0], gone[-1] + 1))
    assert (gone[-1] + 1) % 20 == 0
    which = f"frames {gone[0]} to {gone[-1]} of '{path}', from {gone[0] / 25:.3f} s to {gone[-1] / 25:.3f} s"
    assert problems == [f"{which}, are missing: its data is damaged: invalid data found when processing input"]
    assert list(parts) == list(small)
    assert samples == part_samples


def test_frames_dropped_while_recording_cost_no_others(tmp_path):
    """Their GOP's rest is what the decoder makes of it; all later rows are there."""
    whole = clips.write(tmp_path / "a.mp4", options={"bf": "0", "g": "20"})
    path = clips.remux(whole, tmp_path / "dropped.mkv", lambda number, _: not 40 <= number <= 42)

    (small, samples, problems), (parts, part_samples, _) = (seen(path, each) for each in (600, 2))

    assert set(range(40)) <= set(small)
    assert set(range(57, 97)) <= set(small)
    assert len(problems) <= 1  # this decoder makes up what it lacks
    assert list(parts) == list(small)
    assert samples == part_samples


def test_pictures_that_are_too_large_are_refused(tmp_path, monkeypatch):
    """Before one is decoded."""
    path = clips.write(tmp_path / "a.mp4", num_frames=5)
    monkeypatch.setattr(container, "MAX_PIXELS", clips.WIDTH * clips.HEIGHT - 1)

    assert "have 96 x 64 pixels; at most 6143 are read" in seen(path, 600)[2][0]
