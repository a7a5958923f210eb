"""Reads a video file's packets, splits it into segments, and decodes one segment: streamed, on the CPU.

The truth is what FFmpeg shows a person: the decoder's frames in their order, each at its time, with the edit list
obeyed. A frame is identified by its position in that order, which works for any frame rate. Two things are kept apart:
which frames there are, and where decoding may begin.

- In most files, packets tell both: each packet is one frame with a time of its own. Then a segment is decoded from the
  keyframe before it.
- Where packets do not tell it (`Probe.is_counted`), the whole file is decoded to know its frames, and each segment is
  decoded from the start of the file: AVI with frames out of order, streams whose clock jumps, damaged streams.

Segments begin at multiples of `GRID` frames, if possible just after a keyframe, so that few frames are decoded and
thrown away.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpu_jobs.errors import ItemError
from gpu_jobs.workloads.video import packets, times
from gpu_jobs.workloads.video.container import is_cut_short, opened, words
from gpu_jobs.workloads.video.decoder import Shown, decoded

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

GRID = 50
"""Segments begin at multiples of this many frames, the step of the shot detector's windows."""
COUNTED_S = 300.0
"""The least length of a segment of a file that is decoded from its start: each costs all that lies before it."""
_SEEK_EARLIER_S = 2
_MOST_FRAMES = 36_000
"""A segment has at most this many frames (10 minutes at 60 per second), since small copies of them are in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The frames `[start, stop)` of a video, and all that `decode` needs to read them; stored in the item."""

    start: int
    stop: int
    num_frames: int
    """Number of frames in the whole video."""
    context: int
    """Number of extra frames decoded on either side, as far as the video has them."""
    seek_frame: int
    """Position of the frame where decoding begins, at or before `first`; 0: at the start of the file."""
    seek_pts: int
    end_pts: int
    """Presentation timestamp (PTS) of the last decoded frame, to verify that no frame was lost."""
    origin_pts: int
    """PTS of frame 0, where time 0 is."""
    tick_num: int
    tick_den: int
    """`tick_num / tick_den` is seconds per PTS unit: an exact fraction, so that times do not depend on rounding."""
    video_end_s: float
    pixel_num: int = 1
    pixel_den: int = 1
    """`pixel_num / pixel_den` is the width of a pixel divided by its height."""
    times: list[int] | None = None
    """PTS of the frames `[first, last)`, if frames are counted from the start of the file; else None."""

    @property
    def first(self) -> int:
        """First frame to decode, context included."""
        return max(0, self.start - self.context)

    @property
    def last(self) -> int:
        """One past the last frame to decode, context included."""
        return min(self.num_frames, self.stop + self.context)

    @property
    def pixel_shape(self) -> Fraction:
        return Fraction(self.pixel_num or 1, self.pixel_den or 1)

    def time_s(self, pts: int) -> Fraction:
        return Fraction((pts - self.origin_pts) * self.tick_num, self.tick_den)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Which frames a video has, and where decoding may begin."""

    pts: NDArray[np.int64]
    """Presentation timestamp (PTS) of every frame, in presentation order."""
    keyframes: NDArray[np.int64]
    """Positions of frames where decoding may begin, in order; the first is 0, the start of the file."""
    time_base: Fraction
    end_pts: int
    problem: str
    """Why frames at the end are missing; "" if none are."""
    num_missing: int
    """How many frames are missing at the end; 0 if that is unknown."""
    pixel_shape: Fraction = Fraction(1)
    """The width of a pixel divided by its height."""
    is_counted: bool = False
    """Whether positions count the decoder's frames from the start of the file, since packets do not tell them."""

    @property
    def duration_s(self) -> float:
        return float((self.end_pts - int(self.pts[0])) * self.time_base)


class DamagedError(ItemError):
    """Frames are missing where packets promised them; `salvage` finds out which."""


def probe(path: Path) -> Probe:
    """Find a video's frames: by its packets alone if these tell, else by decoding all of it.

    Raises:
        ItemError: no frame can be decoded.
    """
    with opened(path) as (container, stream):
        is_short = is_cut_short(path, container.format.name)
        found = packets.read(container, stream, is_cut_short=is_short)
    problem = found.problem or ("the file is cut short" if is_short else "")
    if not found.is_trusted or found.may_be_fields:
        counted = _counted(path, found, problem)
        if not found.is_trusted or not np.array_equal(counted.pts, found.pts):
            return counted
    if not len(found.pts):
        raise ItemError(f"'{path}' has no frame that can be decoded; {problem or 'it holds no keyframe'}")
    return Probe(
        pts=found.pts,
        keyframes=found.keyframes,
        time_base=found.time_base,
        end_pts=int(found.pts[-1]) + found.ticks,
        pixel_shape=found.pixel_shape,
        problem=problem,
        num_missing=max(0, found.num_announced - found.num_read) if problem else 0,
    )


def _counted(path: Path, found: packets.Packets, problem: str) -> Probe:
    raw = [shown.pts for shown in _all_frames(path, is_strict=found.has_losses)]
    if not raw:
        raise ItemError(f"'{path}' has no frame that can be decoded; {problem or 'all of its data is damaged'}")
    pts = times.in_order(raw, found.ticks, longest_gap=found.longest_gap, is_even=found.is_even)
    return Probe(
        pts=pts,
        keyframes=np.zeros(1, dtype=np.int64),
        time_base=found.time_base,
        end_pts=int(pts[-1]) + found.ticks,
        pixel_shape=found.pixel_shape,
        problem=problem,
        num_missing=max(0, found.num_announced - len(raw)) if problem else 0,
        is_counted=True,
    )


def split_frames(found: Probe, segment_s: float, context: int) -> Iterator[Segment]:
    """Split a video into segments of about `segment_s` seconds that together cover each frame exactly once.

    Boundaries are multiples of `GRID` near a keyframe.
    """
    num_frames = len(found.pts)
    frames_per_s = num_frames / max(found.duration_s, 1e-3)
    if found.is_counted:
        segment_s = max(segment_s, COUNTED_S)
    target = min(max(GRID, round(segment_s * frames_per_s / GRID) * GRID), _MOST_FRAMES)
    boundaries = [0]
    while num_frames - boundaries[-1] > 1.5 * target:
        boundaries.append(_best_boundary(found.keyframes, boundaries[-1] + target, target // 4, context))
    for start, stop in pairwise([*boundaries, num_frames]):
        seek_frame = _key_before(found.keyframes, max(0, start - context))
        first, last = max(0, start - context), min(num_frames, stop + context)
        yield Segment(
            start=start,
            stop=stop,
            num_frames=num_frames,
            context=context,
            seek_frame=seek_frame,
            seek_pts=int(found.pts[seek_frame]),
            end_pts=int(found.pts[last - 1]),
            origin_pts=int(found.pts[0]),
            tick_num=found.time_base.numerator,
            tick_den=found.time_base.denominator,
            video_end_s=round(found.duration_s, 6),
            pixel_num=found.pixel_shape.numerator,
            pixel_den=found.pixel_shape.denominator,
            times=found.pts[first:last].tolist() if found.is_counted else None,
        )


def decode(path: Path, segment: Segment) -> Iterator[Shown]:
    """Yield every frame of the segment and its context, in order, one in memory at a time.

    Raises:
        DamagedError: a frame is missing or damaged, or the file has changed.
    """
    import av

    if segment.times is not None:
        yield from salvage(path, segment)
        return
    position, frame = segment.seek_frame - 1, None
    with opened(path) as (container, stream):
        try:
            for position, frame in enumerate(_from_keyframe(container, stream, segment), segment.seek_frame):
                if frame.is_corrupt or frame.pts is None:
                    raise DamagedError(f"frame {position} of '{path}' is damaged")
                if position >= segment.first:
                    yield Shown(position, frame.pts, frame)
                if position == segment.last - 1:
                    break
        except (av.FFmpegError, OSError) as error:
            raise DamagedError(f"'{path}' cannot be decoded behind frame {position}: {words(error)}") from error
    if frame is None or position < segment.last - 1 or frame.pts != segment.end_pts:
        raise DamagedError(f"'{path}' lost frames before frame {segment.last}")


def salvage(path: Path, segment: Segment) -> Iterator[Shown]:
    """Yield what can be decoded of a segment of a damaged file, from the start of the file, in order.

    Missing frames are among them, without a picture. If the first one is missing, the last frame before it that is
    not comes first, at its own position.
    """
    before: Shown | None = None
    for shown in _placed(path, segment):
        if shown.at >= segment.last:
            break
        if shown.at < segment.first:
            before = shown if shown.frame is not None else before
            continue
        if shown.at == segment.first and shown.frame is None and before is not None:
            yield before
        yield shown


def _placed(path: Path, segment: Segment) -> Iterator[Shown]:
    """Yield all frames of a file with their positions and times, missing ones included."""
    with opened(path) as (container, stream):
        is_short = is_cut_short(path, container.format.name)
        found = packets.read(container, stream, is_cut_short=is_short)
    shown_frames = _all_frames(path, is_strict=found.has_losses)
    if segment.times is not None:
        for at, shown in enumerate(shown_frames):
            inside = 0 <= at - segment.first < len(segment.times)
            yield shown._replace(at=at, pts=segment.times[at - segment.first] if inside else segment.origin_pts)
        return
    place = {pts: at for at, pts in enumerate(found.pts.tolist())}
    next_at, why = 0, "its data is damaged"
    for shown in shown_frames:
        why = shown.why or why
        if shown.frame is None:
            continue
        at = place.get(shown.pts, -1)
        if at < next_at:
            continue  # no frame that packets tell of
        yield from (Shown(gone, int(found.pts[gone]), None, why) for gone in range(next_at, at))
        yield shown._replace(at=at)
        next_at = at + 1
    yield from (Shown(gone, int(found.pts[gone]), None, why) for gone in range(next_at, len(found.pts)))


def _all_frames(path: Path, *, is_strict: bool) -> Iterator[Shown]:
    with opened(path) as (container, stream):
        yield from decoded(container, stream, is_strict=is_strict)


def _from_keyframe(container: "InputContainer", stream: "VideoStream", segment: Segment) -> Iterator["VideoFrame"]:
    """Yield frames from `seek_frame` on.

    Seeking may land behind it, in transport streams as a rule, since these are sought by decode times: then it is tried
    from a little earlier, and at last from the start of the file.
    """
    margin = int(_SEEK_EARLIER_S * segment.tick_den / segment.tick_num)
    for at in (segment.seek_pts, segment.seek_pts - margin, segment.origin_pts - margin):
        if segment.seek_frame:  # else it is at the start of the file already
            container.seek(at, stream=stream)
        frames = _frames(container, stream)
        first = next((frame for frame in frames if frame.pts is not None and frame.pts >= segment.seek_pts), None)
        if first is not None and first.pts == segment.seek_pts:
            yield first
            yield from frames
            return


def _frames(container: "InputContainer", stream: "VideoStream") -> Iterator["VideoFrame"]:
    for packet in packets.readable(container, stream):
        yield from packet.decode()


def _best_boundary(keyframes: NDArray[np.int64], goal: int, slack: int, context: int) -> int:
    """The multiple of `GRID` near `goal` with the fewest frames to decode and throw away; `goal` is one too."""
    reach = slack // GRID * GRID
    near = range(goal - reach, goal + reach + 1, GRID)
    return min(near, key=lambda at: (at - context - _key_before(keyframes, at - context), abs(at - goal), at))


def _key_before(keyframes: NDArray[np.int64], position: int) -> int:
    return int(keyframes[max(0, int(np.searchsorted(keyframes, position, side="right")) - 1)])
