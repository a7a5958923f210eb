"""Inputs of the workload `video` that cannot be used: each is one error, and nothing else suffers."""

import os
import threading
from pathlib import Path

import av
import numpy as np
import polars as pl
import pytest

from gpu_jobs.dataset.sources import Source, read_sources
from gpu_jobs.errors import RefusedError
from gpu_jobs.workloads import load_workload


def encode(path, container_format, codec="mpeg4", frames=10, **metadata):
    random = np.random.default_rng(0)
    with av.open(str(path), "w", format=container_format) as container:
        container.metadata.update(metadata)
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for _ in range(frames):
            picture = random.integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def good(tmp_path):
    return encode(tmp_path / "good.mp4", "mp4")


@pytest.fixture
def workload():
    return load_workload("video", {"analyses": ["shots"], "thumbnails": False})


def problems_of(workload, dataset):
    """For each item why it cannot be used, or ""."""
    sources = read_sources(dataset, suffixes=workload.suffixes, needs_files=workload.needs_files)
    return [item["problem"] for item in workload.items(sources)]


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("list.mp4", "ffconcat version 1.0\nfile other.ts\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nother.ts\n#EXT-X-ENDLIST\n"),
    ],
    ids=["concat", "HLS"],
)
def test_list_of_other_files_is_not_read(tmp_path, workload, name, script):
    """Its fingerprint knows nothing of them, and they may lie anywhere on this machine."""
    encode(tmp_path / "other.ts", "mpegts")
    (tmp_path / name).write_text(script)

    (problem,) = problems_of(workload, f"{tmp_path}/{name}")

    assert "playlists and scripts that name other files are not read" in problem


@pytest.mark.parametrize(
    ("container_format", "codec"),
    [
        *((name, "mpeg4") for name in ("mp4", "mov", "matroska", "avi", "mpegts", "asf", "nut", "m4v")),
        *((name, "mpeg2video") for name in ("mpeg", "mxf", "mpeg2video")),
        ("flv", "flv1"),
        ("mjpeg", "mjpeg"),
        ("3gp", "mpeg4"),
        ("webm", "libvpx"),
        ("ivf", "libvpx"),
        ("ogg", "libvpx"),
    ],
)
def test_file_is_read_whatever_its_container(tmp_path, workload, container_format, codec):
    """The name says nothing about it."""
    encode(tmp_path / "a.mp4", container_format, codec)

    assert problems_of(workload, str(tmp_path)) == [""]


def test_codec_without_a_decoder_is_one_error(tmp_path, good, workload):
    """As camera raw and protected films are."""
    (tmp_path / "raw.mov").write_bytes(
        encode(tmp_path / "b.tmp", "mov", "mjpeg").read_bytes().replace(b"jpeg", b"BRAW")
    )

    problems = problems_of(workload, str(tmp_path))

    assert problems == [
        "",
        f"'{tmp_path}/raw.mov' has video in a codec that nothing here can decode; convert it, for example to H.264",
    ]


def test_inputs_that_cannot_be_read_are_errors_with_their_causes(tmp_path, good, workload):
    """The cause is the one that was found when the dataset was read."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")).touch()

    problems = problems_of(workload, ["http://host:port/a.mp4", str(tmp_path), "s3://bucket/b.mp4"])

    assert [problem[:14] for problem in problems] == ["the name of '/", "", "'http://host:p", "'s3://bucket/b"]
    assert "is not UTF-8" in problems[0]


def test_title_that_is_not_utf8_is_no_matter(tmp_path, workload):
    path = encode(tmp_path / "a.avi", "avi", title="cafZ")
    path.write_bytes(path.read_bytes().replace(b"cafZ", b"caf\xe9"))

    (item,) = workload.items(read_sources(str(path)))

    assert item["problem"] == ""
    assert len(workload.load(item).starts_s) == 10


def test_any_failure_of_one_video_is_its_error(good, workload, monkeypatch):
    """Whatever a library raises about it."""

    def probe(path):
        raise AttributeError("'NoneType' object has no attribute 'name'")

    monkeypatch.setattr("gpu_jobs.workloads.video.inputs.probe", probe)

    assert problems_of(workload, str(good)) == [
        f"'{good}' cannot be read: AttributeError: 'NoneType' object has no attribute 'name'"
    ]


def test_videos_are_copied_side_by_side_to_be_split(good, workload, monkeypatch):
    """Each copy waits for three others here; the items come in order all the same."""
    together = threading.Barrier(4, timeout=10)

    def local_copy(uri, *_, **__):
        together.wait()
        return good

    monkeypatch.setattr("gpu_jobs.workloads.video.inputs.local_copy", local_copy)
    sources = [Source(id=name, uri=name, fingerprint="x", columns={}) for name in "abcd"]

    assert [item["video"] for item in workload.items(sources)] == ["a", "b", "c", "d"]


def test_videos_inside_a_table_are_read(tmp_path, good, workload):
    """Columns `Video` of Hugging Face datasets: by path, or by their bytes; one without either is an error."""
    cells = [{"bytes": None, "path": "good.mp4"}, {"bytes": good.read_bytes(), "path": "a.mp4"}, None]
    pl.DataFrame({"id": ["1", "2", "3"], "video": cells}).write_parquet(tmp_path / "t.parquet")
    sources = read_sources(f"{tmp_path}/t.parquet", needs_files=True)

    first, second, third = workload.items(sources)

    assert [first["item"], second["item"], third["problem"]] == ["1#0-10", "2#0-10", "row '3' names no file"]
    assert (workload.load(first).windows == workload.load(second).windows).all()


def test_table_that_names_no_files_is_refused_once(tmp_path, workload):
    (tmp_path / "t.csv").write_text("id,text\n1,a\n")

    with pytest.raises(RefusedError, match=r"names no file.*it has id \(String\), text \(String\)"):
        problems_of(workload, f"{tmp_path}/t.csv")
