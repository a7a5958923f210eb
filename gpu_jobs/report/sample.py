"""A small sample of a campaign's results for people to look at; the rows of video analysis are grouped by video."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from gpu_jobs.campaign.manifest import Manifest
from gpu_jobs.report import formats, trainings
from gpu_jobs.report.markup import cell
from gpu_jobs.store import Store
from gpu_jobs.workloads.video.duplicates import near_duplicates

_MAX_FILE_BYTES = 2_000_000_000
_MAX_COMPARED = 6000
_VIDEO_COLUMNS = frozenset({"analysis", "video", "frame", "start_s", "end_s"})
_NUM_LABELS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleLimits:
    """The largest size of a sample."""

    videos: int = 5
    moments: int = 40
    """The most shots of one video, or frames if the campaign did not look for shots."""
    pairs: int = 9
    rows: int = 20
    trainings: int = 200


class Moment(NamedTuple):
    """A shot or a frame of a video."""

    start_s: float
    end_s: float | None
    labels: list[tuple[str, float]]
    thumbnail: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSample:
    video: str
    kind: str
    """ "shot" or "frame"."""
    num_moments: int
    """The number of shots or frames of the video; `moments` may hold fewer."""
    moments: Sequence[Moment]


class Place(NamedTuple):
    """A frame of a video, with the first picture of its shot."""

    video: str
    at_s: float
    thumbnail: bytes | None


class Pair(NamedTuple):
    """Two shots with frames that look alike."""

    one: Place
    other: Place
    similarity: float
    num_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The sample, taken from the first output file."""

    videos: Sequence[VideoSample] = ()
    num_videos: int = 0
    pairs: Sequence[Pair] = ()
    num_pairs: int = 0
    trainings: pl.DataFrame | None = None
    """The fine-tunings of a sweep, the best one first."""
    table: pl.DataFrame | None = None
    preview: pl.DataFrame | None = None
    """A draft model's answers to the first items."""
    note: str = ""
    """Why the sample is empty or incomplete."""


def read_sample(store: Store, manifest: Manifest, limits: SampleLimits) -> Sample:
    """Read a sample of what was published."""
    file = manifest.outputs[0]
    if file.num_rows == 0:
        return Sample(note="There are no rows: no item has been committed with a result yet.")
    if file.num_bytes > _MAX_FILE_BYTES:
        return Sample(note=f"No sample: the first output file, {file.key}, has {formats.size(file.num_bytes)}.")
    others = len(manifest.outputs) - 1
    note = f"Taken from the first of {others + 1} output files." if others else ""
    with tempfile.TemporaryDirectory(prefix="fanfold-sample-") as folder:
        path = Path(folder) / "part.parquet"
        store.download(file.key, path)
        rows = pl.scan_parquet(path)
        if set(rows.collect_schema().names()) >= _VIDEO_COLUMNS:
            return _of_videos(rows, limits, note)
        if set(rows.collect_schema().names()) >= trainings.COLUMNS:
            return Sample(trainings=rows.sort("rank").head(limits.trainings).collect(), note=note)
        return Sample(table=rows.head(limits.rows).collect(), note=note)


def sample_text(store: Store, manifest: Manifest, max_rows: int = 40) -> str:
    """A sample for a terminal: the shots of each video with times and labels, or else the first rows."""
    sample = read_sample(store, manifest, SampleLimits(moments=max_rows, rows=max_rows, pairs=0))
    lines = [sample.note] if sample.note else []
    each = max(1, max_rows // max(1, len(sample.videos)))
    for video in sample.videos:
        lines += _video_lines(video, each)
    if left := sample.num_videos - len(sample.videos):
        lines.append(f"and {formats.count(left, 'more video')}")
    if sample.trainings is not None:
        lines += _table_lines(sample.trainings.select("rank", "item", "eval_loss", "eval_loss_before", "steps"))
    if sample.table is not None:
        lines += _table_lines(sample.table)
    return "\n".join(map(formats.printable, lines))


def _label_words(labels: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{label} {formats.share(score)}" for label, score in labels)


def _video_lines(video: VideoSample, max_lines: int) -> list[str]:
    lines = [f"{formats.short_name(video.video)}: {formats.count(video.num_moments, video.kind)}"]
    for moment in video.moments[:max_lines]:
        end = "" if moment.end_s is None else f" - {formats.position(moment.end_s)}"
        lines.append(f"  {formats.position(moment.start_s)}{end}  {_label_words(moment.labels)}".rstrip())
    if left := video.num_moments - min(len(video.moments), max_lines):
        lines.append(f"  and {left:,} more")
    return lines


def _table_lines(table: pl.DataFrame) -> list[str]:
    columns = [
        [name, *(formats.printable(cell(value, 40)) for value in values)]
        for name, values in table.to_dict(as_series=False).items()
    ]
    widths = [max(map(len, column)) for column in columns]
    numeric = [table.schema[name].is_numeric() for name in table.columns]
    return [
        "  ".join(
            text.rjust(width) if is_numeric else text.ljust(width)
            for text, width, is_numeric in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in zip(*columns, strict=True)
    ]


def _of_videos(rows: pl.LazyFrame, limits: SampleLimits, note: str) -> Sample:
    counts = rows.group_by("video", "analysis", maintain_order=True).agg(num_moments=pl.len()).collect()
    names = counts["video"].unique(maintain_order=True).to_list()
    by_kind = {(video, kind): number for video, kind, number in counts.iter_rows()}
    videos = [_video(rows, name, by_kind, limits.moments) for name in names[: limits.videos]]
    pairs = _pairs(rows) if limits.pairs else pl.DataFrame()
    return Sample(
        videos=videos,
        num_videos=len(names),
        pairs=_with_thumbnails(rows, pairs.head(limits.pairs)),
        num_pairs=pairs.height,
        note=note,
    )


def _video(rows: pl.LazyFrame, name: str, by_kind: dict[tuple[str, str], int], limit: int) -> VideoSample:
    kind = "shot" if (name, "shot") in by_kind else "frame"
    wanted = ("start_s", "end_s", "labels", "thumbnail")
    known = [column for column in wanted if column in rows.collect_schema().names()]
    found = rows.filter(video=name, analysis=kind).select(known).head(limit).collect()
    return VideoSample(
        video=name,
        kind=kind,
        num_moments=by_kind.get((name, kind), 0),
        moments=[_moment(row) for row in found.iter_rows(named=True)],
    )


def _moment(row: dict[str, Any]) -> Moment:
    labels = [(str(guess["label"]), float(guess["score"])) for guess in (row.get("labels") or ())[:_NUM_LABELS]]
    return Moment(row["start_s"], row["end_s"], labels, row.get("thumbnail"))


def _pairs(rows: pl.LazyFrame) -> pl.DataFrame:
    """Pairs of shots with near-duplicate frames, most similar first, among the first rows."""
    if "embedding" not in rows.collect_schema().names():
        return pl.DataFrame()
    compared = rows.select("analysis", "video", "frame", "start_s", "embedding").head(_MAX_COMPARED).collect()
    found = near_duplicates(compared)
    starts = compared.filter(analysis="shot").select("video", "frame", shot="frame").sort("video", "frame")
    found = found.sort("video", "frame").join_asof(starts, on="frame", by="video", check_sortedness=False)
    others = starts.select(other_video="video", other_frame="frame", other_shot="shot")
    found = found.sort("other_video", "other_frame").join_asof(
        others, on="other_frame", by="other_video", check_sortedness=False
    )
    best = found.sort("similarity", "video", "frame", descending=[True, False, False])
    keys = [pl.col(name).fill_null(pl.col(frame)) for name, frame in (("shot", "frame"), ("other_shot", "other_frame"))]
    return (
        best.with_columns(keys)
        .group_by("video", "shot", "other_video", "other_shot", maintain_order=True)
        .agg(pl.col("start_s", "other_start_s", "similarity").first(), num_frames=pl.len())
    )


def _with_thumbnails(rows: pl.LazyFrame, pairs: pl.DataFrame) -> list[Pair]:
    if pairs.is_empty():
        return []
    wanted = pl.concat(
        [
            pairs.select("video", frame="shot"),
            pairs.select(video="other_video", frame="other_shot"),
        ]
    ).unique()
    pictures: dict[tuple[str, int], bytes | None] = {}
    if "thumbnail" in rows.collect_schema().names():
        shots = rows.filter(analysis="shot").select("video", "frame", "thumbnail")
        found = shots.join(wanted.lazy(), on=["video", "frame"], how="semi").collect()
        pictures = {(video, frame): picture for video, frame, picture in found.iter_rows()}
    return [
        Pair(
            Place(row["video"], row["start_s"], pictures.get((row["video"], row["shot"]))),
            Place(row["other_video"], row["other_start_s"], pictures.get((row["other_video"], row["other_shot"]))),
            row["similarity"],
            row["num_frames"],
        )
        for row in pairs.iter_rows(named=True)
    ]
