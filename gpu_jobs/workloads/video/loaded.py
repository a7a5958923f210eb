"""What is kept of a decoded segment: the models' inputs, times, thumbnails, and which frames are missing."""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from gpu_jobs.workloads.video import shots
from gpu_jobs.workloads.video.decode import Segment
from gpu_jobs.workloads.video.decoder import Shown
from gpu_jobs.workloads.video.frames import Pixels
from gpu_jobs.workloads.video.picture import Picture, Turn

if TYPE_CHECKING:
    from av import VideoFrame

_THUMBNAIL = (160, 320)
"""The largest width and height of a thumbnail; almost all have this width."""
_MOST_GAPS = 10
"""How many gaps an error names one by one."""


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
        more = [f"and {len(gaps) - _MOST_GAPS} more"] if len(gaps) > _MOST_GAPS else []
        return "; ".join([*map(self._gap, gaps[:_MOST_GAPS]), *more])

    def _gap(self, gap: Sequence[Shown]) -> str:
        begin_s, end_s = (float(self.segment.time_s(each.pts)) for each in (gap[0], gap[-1]))
        which = f"frames {gap[0].at} to {gap[-1].at} of '{self.video}'"
        return f"{which}, from {begin_s:.3f} s to {end_s:.3f} s, are missing: {gap[0].why}"

    def jpeg(self, at: int) -> bytes | None:
        """Return the thumbnail of a frame; None if there is none."""
        thumbnail = self.thumbnails.get(at)
        return _jpeg(*thumbnail) if isinstance(thumbnail, tuple) else thumbnail

    def fill(
        self,
        frames: Iterable[Shown],
        prepare: "Callable[[Picture], Pixels] | None",
        *,
        frames_per_s: float,
        has_windows: bool,
        has_thumbnails: bool,
    ) -> None:
        """Decode the segment, and keep what its analyses need.

        Args:
            frames: the segment's frames with their context, missing ones included.
            prepare: makes a model's input of a sampled frame; None: no frame is sampled.
            frames_per_s: how many frames are sampled per second.
            has_windows: whether the shot detector's windows are wanted.
            has_thumbnails: whether thumbnails are wanted too.
        """
        samples = _Samples(self.segment, frames_per_s)
        windows = _Windows(self, has_thumbnails=has_thumbnails) if has_windows else None
        for shown in frames:
            is_inside = self.segment.start <= shown.at < self.segment.stop
            if is_inside and shown.frame is None:
                self.missing.append(shown)
            picture = Picture(shown.frame, self.segment.pixel_shape) if shown.frame is not None else None
            if prepare is not None and picture is not None and samples.wants(shown) and is_inside:
                self.samples.append((shown.at, seconds(self.segment.time_s(shown.pts)), prepare(picture)))
            if windows is not None:
                windows.add(shown, picture)
        if windows is not None:
            windows.close()


class _Samples:
    """Chooses the first frame in each step of a time grid that starts with the video."""

    def __init__(self, segment: Segment, frames_per_s: float) -> None:
        self._segment = segment
        self._rate = Fraction(str(frames_per_s))
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

    def __init__(self, loaded: LoadedSegment, *, has_thumbnails: bool) -> None:
        from av.video.reformatter import VideoReformatter

        segment = loaded.segment
        loaded.windows = self._windows = shots.empty_windows(segment.stop - segment.start)
        self._loaded = loaded
        self._shift = shots.CONTEXT - segment.start
        self._has_thumbnails = has_thumbnails
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
            self._loaded.starts_s[shown.at] = seconds(segment.time_s(shown.pts))
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


def _jpeg(frame: "VideoFrame", turn: Turn) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(turn.apply(frame.to_ndarray(format="rgb24"))).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def seconds(time_s: Fraction) -> float:
    return round(float(time_s), 6)
