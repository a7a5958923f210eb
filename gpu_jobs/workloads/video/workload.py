"""Video analysis: one row per shot and per sampled frame, independent of how videos are split into segments."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import polars as pl
from pydantic import Field

from gpu_jobs.dataset.sources import Source, input_cache, local_copy
from gpu_jobs.errors import ItemError
from gpu_jobs.workloads.base import Item, Params, Row, Workload
from gpu_jobs.workloads.video import shots
from gpu_jobs.workloads.video.decode import DamagedError, Segment, decode, salvage, split_frames
from gpu_jobs.workloads.video.decoder import Shown
from gpu_jobs.workloads.video.frames import DEFAULT_MODEL, FrameModel, Pixels
from gpu_jobs.workloads.video.inputs import probe_all
from gpu_jobs.workloads.video.picture import Picture, Turn

if TYPE_CHECKING:
    from av import VideoFrame

_THUMBNAIL = (160, 320)
"""The largest width and height of a thumbnail; almost all have this width."""
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


@dataclass(slots=True, kw_only=True)
class LoadedSegment:
    """One decoded segment: all that the models and the output rows need."""

    video: str
    segment: Segment
    windows: shots.Frames | None = None
    starts_s: dict[int, float] = field(default_factory=dict)
    """Time in seconds of each frame where a shot of this segment may begin."""
    thumbnails: "dict[int, bytes | tuple[VideoFrame, Turn]]" = field(default_factory=dict)
    """The same frames in thumbnail size, if thumbnails are wanted: as JPEG, or each with how it must be turned."""
    samples: list[tuple[int, float, Pixels]] = field(default_factory=list)
    """(position, time in seconds, model input) of each sampled frame."""
    missing: list[Shown] = field(default_factory=list)
    """Frames of the segment that cannot be decoded."""

    @property
    def problem(self) -> str:
        """Say which frames are missing and why; "" if none are."""
        gaps: list[list[Shown]] = []
        for shown in self.missing:
            if gaps and shown.at == gaps[-1][-1].at + 1:
                gaps[-1].append(shown)
            else:
                gaps.append([shown])
        return "; ".join(map(self._gap, gaps))

    def _gap(self, gap: Sequence[Shown]) -> str:
        begin_s, end_s = (float(self.segment.time_s(each.pts)) for each in (gap[0], gap[-1]))
        which = f"frames {gap[0].at} to {gap[-1].at} of '{self.video}'"
        return f"{which}, from {begin_s:.3f} s to {end_s:.3f} s, are missing: {gap[0].why}"


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
        loaded = LoadedSegment(video=item["video"], segment=segment)
        try:
            self._fill(loaded, decode(path, segment))
        except DamagedError:
            loaded = LoadedSegment(video=item["video"], segment=segment)
            self._fill(loaded, salvage(path, segment))
        if len(loaded.missing) == segment.stop - segment.start:
            raise ItemError(loaded.problem)
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

    def _fill(self, loaded: LoadedSegment, frames: Iterator[Shown]) -> None:
        """Decode a segment, and keep what its analyses need."""
        samples = _Samples(loaded, self.params) if "frames" in self.params.analyses else None
        windows = _Windows(loaded, self.params) if "shots" in self.params.analyses else None
        segment = loaded.segment
        for shown in frames:
            is_inside = segment.start <= shown.at < segment.stop
            if is_inside and shown.frame is None:
                loaded.missing.append(shown)
            picture = Picture(shown.frame, segment.pixel_shape) if shown.frame is not None else None
            if samples is not None and picture is not None and samples.wants(shown) and is_inside:
                loaded.samples.append((shown.at, _seconds(segment.time_s(shown.pts)), self._frames.prepare(picture)))
            if windows is not None:
                windows.add(shown, picture)
        if windows is not None:
            windows.close()


class _Samples:
    """Chooses the first frame in each step of a time grid that starts with the video."""

    def __init__(self, loaded: LoadedSegment, params: VideoParams) -> None:
        self._segment = loaded.segment
        self._rate = Fraction(str(params.frames_per_s))
        self._at, self._step = -1, -1

    def wants(self, shown: Shown) -> bool:
        """Whether a frame is sampled; one that follows missing frames always is."""
        step = self._segment.time_s(shown.pts) * self._rate // 1
        is_wanted = step != self._step or shown.at != self._at + 1
        self._at, self._step = shown.at, step
        return is_wanted


class _Windows:
    """Fills the shot detector's windows, and keeps times and thumbnails of frames where a shot may begin.

    A missing frame looks like the last one before it, as in players.
    """

    def __init__(self, loaded: LoadedSegment, params: VideoParams) -> None:
        from av.video.reformatter import VideoReformatter

        segment = loaded.segment
        loaded.windows = self._windows = shots.empty_windows(segment.stop - segment.start)
        self._loaded = loaded
        self._shift = shots.CONTEXT - segment.start
        self._has_thumbnails = params.thumbnails
        self._to_windows, self._to_thumbnail = VideoReformatter(), VideoReformatter()
        self._small: Any = None
        self._num_waiting = 0
        """How many missing frames there are at the start, before any picture."""

    def add(self, shown: Shown, picture: Picture | None) -> None:
        segment = self._loaded.segment
        if picture is not None:
            self._small = picture.rgb(shots.WIDTH, shots.HEIGHT, self._to_windows)
        if shown.at < segment.first:
            return
        at = shown.at + self._shift
        if self._small is None:
            self._num_waiting += 1
        else:
            self._windows[at - self._num_waiting : at + 1] = self._small
            self._num_waiting = 0
        if segment.start <= shown.at <= segment.stop:
            self._loaded.starts_s[shown.at] = _seconds(segment.time_s(shown.pts))
            if self._has_thumbnails and picture is not None:
                size = _thumbnail_size(picture)
                small = (picture.scaled(*size, "yuv420p", self._to_thumbnail), picture.turn)
                is_long = segment.times is not None  # then most of it would be these pictures: up to gigabytes
                self._loaded.thumbnails[shown.at] = _jpeg(*small) if is_long else small

    def close(self) -> None:
        segment = self._loaded.segment
        shots.repeat_edges(self._windows, segment.first + self._shift, segment.last + self._shift)


def _thumbnail_size(picture: Picture) -> tuple[int, int]:
    width, highest = _THUMBNAIL
    height = max(2, round(width * picture.height / picture.width / 2) * 2)
    return (width, height) if height <= highest else (max(2, round(width * highest / height / 2) * 2), highest)


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
        thumbnail = loaded.thumbnails.get(at)
        yield {
            "analysis": "shot",
            "video": loaded.video,
            "frame": at,
            "start_s": loaded.starts_s.get(at, segment.video_end_s),
            "end_s": segment.video_end_s,
            "score": score,
            "transition_frames": transition_frames,
            "thumbnail": _jpeg(*thumbnail) if isinstance(thumbnail, tuple) else thumbnail,
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


def _jpeg(frame: "VideoFrame", turn: Turn) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(turn.apply(frame.to_ndarray(format="rgb24"))).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _seconds(time_s: Fraction) -> float:
    return round(float(time_s), 6)
