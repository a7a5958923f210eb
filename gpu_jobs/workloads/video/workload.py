"""Video analysis: one row per shot and per sampled frame, independent of how videos are split into segments."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field

from gpu_jobs.dataset.sources import Source, input_cache, local_copy
from gpu_jobs.errors import ItemError
from gpu_jobs.workloads.base import Item, Params, Row, Workload
from gpu_jobs.workloads.video import shots
from gpu_jobs.workloads.video.decode import DamagedError, Segment, decode, salvage, split_frames
from gpu_jobs.workloads.video.decoder import Shown
from gpu_jobs.workloads.video.frames import DEFAULT_MODEL, FrameModel
from gpu_jobs.workloads.video.inputs import probe_all
from gpu_jobs.workloads.video.loaded import LoadedSegment

_SEGMENT_FIELDS = tuple(one.name for one in fields(Segment))
_UNUSABLE_WEIGHT = 0.1
_LABELS = pl.List(pl.Struct({"label": pl.String, "score": pl.Float32}))


class VideoParams(Params):
    """Which analyses to run, and how."""

    analyses: list[Literal["shots", "frames"]] = Field(
        default=["shots", "frames"],
        min_length=1,
        title="Analyses",
        description="shots: start and end of each shot. frames: labels and an embedding of each sampled frame",
    )
    segment_s: float = Field(
        default=20,
        gt=0,
        le=600,
        title="Segment, seconds",
        description="Length of one item; rows do not depend on it. Small copies of its frames are held in memory",
    )
    frames_per_s: float = Field(
        default=1, gt=0, le=60, title="Frames per second", description="Number of frames sampled per second of video"
    )
    shot_threshold: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        title="Shot threshold",
        description="A frame with a higher probability belongs to a transition; a lower value finds more shots",
    )
    frame_model: str = Field(
        default=DEFAULT_MODEL,
        title="Frame model",
        description=f"{DEFAULT_MODEL}, or a transformers vision model: hub id, id@revision or a folder in the image",
    )
    top_k: int = Field(
        default=5, ge=1, le=100, title="Labels", description="How many of the most probable labels are kept"
    )
    thumbnails: bool = Field(
        default=True, title="Thumbnails", description="Store a small JPEG of each shot's first frame"
    )


class Video(Workload):
    """Finds shots with TransNetV2, and labels and embeds frames with an image model, on segments of videos."""

    params: VideoParams
    params_model: ClassVar[type[Params]] = VideoParams
    needs_files: ClassVar[bool] = True
    source_column: ClassVar[str] = "video"
    suffixes: ClassVar[tuple[str, ...]] = (
        ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp",
    )  # fmt: skip
    columns: ClassVar[Mapping[str, pl.DataType | type[pl.DataType]]] = {
        "analysis": pl.String,  # "shot" or "frame"
        "video": pl.String,  # id of the source: its uri, or the id in the table
        "frame": pl.Int64,  # position in the video of the frame or of the shot's first frame
        "start_s": pl.Float64,
        "end_s": pl.Float64,  # where the next shot begins; null for a frame
        "label": pl.String,  # the most probable label
        "score": pl.Float32,  # shot: probability of the transition before it; frame: probability of its label
        "labels": _LABELS,  # shot: mean over its sampled frames
        "embedding": pl.List(pl.Float32),  # length 1; frames only
        "transition_frames": pl.Int32,  # length of the transition before the shot, in frames: 1 is a hard cut
        "thumbnail": pl.Binary,  # JPEG; shots only
    }

    def items(self, sources: Iterable[Source]) -> Iterator[Item]:
        """Yield the segments of each video in order; an unusable part becomes an item whose `load` raises the error."""
        context = shots.CONTEXT if "shots" in self.params.analyses else 1
        for source, found in probe_all(sources):
            if isinstance(found, str):
                yield _unusable(source, 0, 0, found)
                continue
            ends = [*found.pts.tolist(), found.end_pts]
            for segment in split_frames(found, self.params.segment_s, context):
                seconds = float((ends[segment.stop] - ends[segment.start]) * found.time_base)
                yield _item(source, asdict(segment), seconds)
            if found.problem:
                start = len(found.pts)
                yield _unusable(source, start, start + found.num_missing, f"frames from {start} on: {found.problem}")

    def setup(self, device: str) -> None:
        self.micro_batch = 1 if device == "cpu" else 4
        if "shots" in self.params.analyses:
            self._shots = shots.ShotDetector(device)
        if "frames" in self.params.analyses:
            self._frames = FrameModel(self.params.frame_model, device, self.params.top_k)

    def load(self, item: Item) -> LoadedSegment:
        if item["problem"]:
            raise ItemError(item["problem"])
        path = local_copy(item["uri"], input_cache(), expected=item["fingerprint"])
        segment = Segment(**{name: item[name] for name in _SEGMENT_FIELDS if name in item})
        try:
            loaded = self._loaded(item["video"], segment, decode(path, segment))
        except DamagedError:
            loaded = self._loaded(item["video"], segment, salvage(path, segment))
        if len(loaded.missing) == segment.stop - segment.start:
            raise ItemError(loaded.problem)
        return loaded

    def _loaded(self, video: str, segment: Segment, frames: Iterator[Shown]) -> LoadedSegment:
        params, prepare = self.params, self._frames.prepare if "frames" in self.params.analyses else None
        loaded = LoadedSegment(video=video, segment=segment)
        loaded.fill(
            frames,
            prepare,
            frames_per_s=params.frames_per_s,
            has_windows="shots" in params.analyses,
            has_thumbnails=params.thumbnails,
        )
        return loaded

    def infer(self, inputs: Sequence[LoadedSegment]) -> Sequence[Sequence[Row] | ItemError]:
        rows: list[list[Row]] = [[] for _ in inputs]
        if "shots" in self.params.analyses:
            scores = self._shots.scores([one.windows for one in inputs if one.windows is not None])
            for one, found, out in zip(inputs, scores, rows, strict=True):
                num_frames = one.segment.stop - one.segment.start
                runs = shots.transitions(found[:num_frames], self.params.shot_threshold)
                out.extend(_shot_rows(one, runs))
        if "frames" in self.params.analyses:
            seen = iter(self._frames.predict([pixels for one in inputs for _, _, pixels in one.samples]))
            for one, out in zip(inputs, rows, strict=True):
                out.extend(_frame_row(one.video, at, time_s, next(seen)) for at, time_s, _ in one.samples)
        return [
            ItemError(one.problem, rows=found) if one.missing else found
            for one, found in zip(inputs, rows, strict=True)
        ]

    def teardown(self) -> None:
        self.__dict__.pop("_shots", None)
        self.__dict__.pop("_frames", None)

    def finish(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Complete shots across segments: join halves of transitions, set ends, average the labels of frames."""
        if "shots" not in self.params.analyses:
            return rows
        is_shot = pl.col("analysis") == "shot"
        keys = ["item_index", "analysis", "frame"]
        whole = shots.merge(rows.filter(is_shot).select(shots.MERGED_COLUMNS)).with_columns(analysis=pl.lit("shot"))
        filled = ["end_s", "score", "transition_frames"]
        if "frames" in self.params.analyses:
            guesses = rows.filter(pl.col("analysis") == "frame").select("video", "frame", "labels")
            whole = whole.join(shots.labels(whole, guesses, self.params.top_k), on=["video", "frame"], how="left")
            filled += ["label", "labels"]
        joined = rows.join(
            whole.select(*keys, *filled, _is_whole=True), on=keys, how="left", suffix="_whole", maintain_order="left"
        )
        return (
            joined.filter(is_shot.not_().fill_null(value=True) | pl.col("_is_whole"))
            .with_columns(pl.coalesce(f"{name}_whole", name).alias(name) for name in filled)
            .drop("_is_whole", *(f"{name}_whole" for name in filled))
        )


def _item(source: Source, segment: Mapping[str, Any], weight: float, problem: str = "") -> Item:
    return {
        "item": f"{source.id}#{segment['start']}-{segment['stop']}",
        "weight": weight,
        "fingerprint": source.fingerprint,
        "uri": source.uri,
        "video": source.id,
        "problem": problem,
        **segment,
    }


def _unusable(source: Source, start: int, stop: int, problem: str) -> Item:
    segment = {**dict.fromkeys(_SEGMENT_FIELDS, 0), "start": start, "stop": stop, "video_end_s": 0.0, "times": None}
    return _item(source, segment, _UNUSABLE_WEIGHT, problem)


def _shot_rows(loaded: LoadedSegment, runs: Iterable[tuple[int, int, float]]) -> Iterator[Row]:
    """Yield a row for the video's start and one after each transition; `finish` removes rows without a shot."""
    segment = loaded.segment
    starts = [(segment.start + stop, stop - start, score) for start, stop, score in runs]
    for at, transition_frames, score in [(0, 0, None), *starts] if segment.start == 0 else starts:
        yield {
            "analysis": "shot",
            "video": loaded.video,
            "frame": at,
            "start_s": loaded.starts_s.get(at, segment.video_end_s),
            "end_s": segment.video_end_s,
            "score": score,
            "transition_frames": transition_frames,
            "thumbnail": loaded.jpeg(at),
        }


def _frame_row(video: str, at: int, time_s: float, seen: Any) -> Row:
    best = seen.labels[0] if seen.labels else {"label": None, "score": None}
    return {
        "analysis": "frame",
        "video": video,
        "frame": at,
        "start_s": time_s,
        **best,
        "labels": seen.labels,
        "embedding": seen.embedding,
    }
