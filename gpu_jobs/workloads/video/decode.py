"""Reads a video file's packets, splits it into segments, and decodes one segment: streamed, on the CPU.

A frame is identified by its position in presentation order, which works for any frame rate. Segments begin at
multiples of `GRID` frames, if possible just after a keyframe, so that few frames are decoded and thrown away.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpu_jobs.errors import ItemError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

GRID = 50
"""Segments begin at multiples of this many frames, the step of the shot detector's windows."""
_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,live_flv,ogg,mxf,gxf,nut,ivf,obu,av1,h264,hevc,vvc,m4v,vc1,"
    "mjpeg,dv,rm,wtv,yuv4mpegpipe,gif,apng,swf,roq,nsv,nuv,amv,3g2"
)
"""FFmpeg's names of the formats that are read: none of them makes it open another file."""


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
    """Position of the keyframe where decoding begins, at or before `first`."""
    seek_pts: int
    end_pts: int
    """Presentation timestamp (PTS) of the last decoded frame, to verify that no frame was lost."""
    origin_pts: int
    """PTS of frame 0, where time 0 is."""
    tick_num: int
    tick_den: int
    """`tick_num / tick_den` is seconds per PTS unit: an exact fraction, so that times do not depend on rounding."""
    video_end_s: float

    @property
    def first(self) -> int:
        """First frame to decode, context included."""
        return max(0, self.start - self.context)

    @property
    def last(self) -> int:
        """One past the last frame to decode, context included."""
        return min(self.num_frames, self.stop + self.context)

    def time_s(self, pts: int) -> Fraction:
        return Fraction((pts - self.origin_pts) * self.tick_num, self.tick_den)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What is known of a video after demuxing the whole file, without decoding."""

    pts: NDArray[np.int64]
    """Presentation timestamp (PTS) of every frame, in presentation order."""
    keyframes: NDArray[np.int64]
    """Positions of the keyframes."""
    time_base: Fraction
    end_pts: int
    problem: str
    """Why frames at the end are missing; "" if none are."""
    num_missing: int
    """How many frames are missing at the end; 0 if that is unknown."""

    @property
    def duration_s(self) -> float:
        return float((self.end_pts - int(self.pts[0])) * self.time_base)


def probe(path: Path) -> Probe:
    """Read all packets without decoding; raises `ItemError` if no frame can be decoded."""
    import av

    packets: list[tuple[int, bool]] = []
    problem, ticks, num_read = "", 1, 0
    with _opened(path) as (container, stream):
        announced = stream.frames if "mp4" in container.format.name else 0  # other formats only estimate it
        time_base = stream.time_base or Fraction(1, 1000)
        is_vp8 = stream.codec_context.name == "vp8"
        try:
            for packet in container.demux(stream):
                num_read += packet.size > 0 and not packet.is_corrupt
                pts = packet.dts if packet.pts is None else packet.pts
                is_hidden = is_vp8 and packet.size > 0 and not bytes(packet)[0] & 0x10  # RFC 6386, 9.1: show_frame
                if packet.size and pts is not None and not (packet.is_discard or packet.is_corrupt or is_hidden):
                    packets.append((pts, packet.is_keyframe))
                    ticks = packet.duration or ticks
        except (av.FFmpegError, OSError) as error:
            problem = f"the file cannot be read further: {_words(error)}"
    first_key = min((pts for pts, is_key in packets if is_key), default=None)
    if first_key is None:
        raise ItemError(f"'{path}' has no frame that can be decoded; {problem or 'it holds no keyframe'}")
    packets = sorted(
        packet for packet in packets if packet[0] >= first_key
    )  # frames before the first keyframe cannot be decoded
    all_pts = np.array([pts for pts, _ in packets], dtype=np.int64)
    missing = max(0, announced - num_read)
    if missing and not problem:
        problem = "the file is cut short"
    return Probe(
        pts=all_pts,
        keyframes=np.array([at for at, (_, is_key) in enumerate(packets) if is_key], dtype=np.int64),
        time_base=time_base,
        end_pts=int(all_pts[-1]) + ticks,
        problem=problem,
        num_missing=missing,
    )


def split_frames(found: Probe, segment_s: float, context: int) -> Iterator[Segment]:
    """Split a video into segments of about `segment_s` seconds that together cover each frame exactly once.

    Boundaries are multiples of `GRID` near a keyframe.
    """
    num_frames = len(found.pts)
    frames_per_s = num_frames / max(found.duration_s, 1e-3)
    target = max(GRID, round(segment_s * frames_per_s / GRID) * GRID)
    boundaries = [0]
    while num_frames - boundaries[-1] > 1.5 * target:
        boundaries.append(_best_boundary(found.keyframes, boundaries[-1] + target, target // 4, context))
    for start, stop in pairwise([*boundaries, num_frames]):
        seek_frame = _key_before(found.keyframes, max(0, start - context))
        yield Segment(
            start=start,
            stop=stop,
            num_frames=num_frames,
            context=context,
            seek_frame=seek_frame,
            seek_pts=int(found.pts[seek_frame]),
            end_pts=int(found.pts[min(num_frames, stop + context) - 1]),
            origin_pts=int(found.pts[0]),
            tick_num=found.time_base.numerator,
            tick_den=found.time_base.denominator,
            video_end_s=round(found.duration_s, 6),
        )


def decode(path: Path, segment: Segment) -> Iterator[tuple[int, "VideoFrame"]]:
    """Yield (position, frame) for every frame of the segment and its context, in order, one in memory at a time.

    Raises:
        ItemError: a frame is missing or damaged, or the file has changed.
    """
    import av

    position, frame = segment.seek_frame - 1, None
    with _opened(path) as (container, stream):
        try:
            for position, frame in enumerate(_from_keyframe(container, stream, segment), segment.seek_frame):
                if frame.is_corrupt:
                    raise ItemError(f"frame {position} of '{path}' is damaged")
                if position >= segment.first:
                    yield position, frame
                if position == segment.last - 1:
                    break
        except (av.FFmpegError, OSError) as error:
            raise ItemError(f"'{path}' cannot be decoded behind frame {position}: {_words(error)}") from error
    if frame is None or position < segment.last - 1:
        raise ItemError(f"'{path}' ends behind frame {position}; frame {segment.last - 1} was expected")
    if frame.pts != segment.end_pts:
        raise ItemError(
            f"'{path}' lost frames before frame {segment.last}: its data is damaged or its times disordered"
        )


def _from_keyframe(container: "InputContainer", stream: "VideoStream", segment: Segment) -> Iterator["VideoFrame"]:
    """Yield frames from `seek_pts` on; if seeking does not find that frame, decode from the start of the file."""
    if segment.seek_frame:
        container.seek(segment.seek_pts, stream=stream)
    frames = _frames(container, stream)
    first = next((frame for frame in frames if frame.pts is not None and frame.pts >= segment.seek_pts), None)
    if (first is None or first.pts != segment.seek_pts) and segment.seek_frame:
        container.seek(segment.origin_pts, stream=stream)
        frames = _frames(container, stream)
        first = next((frame for frame in frames if frame.pts is not None and frame.pts >= segment.seek_pts), None)
    if first is not None:
        yield first
        yield from frames


def _frames(container: "InputContainer", stream: "VideoStream") -> Iterator["VideoFrame"]:
    """Yield all frames; before an error is raised, also the complete ones that wait in the decoder for reordering."""
    import av

    for packet in container.demux(stream):
        try:
            decoded = packet.decode()
        except av.FFmpegError:
            yield from stream.codec_context.decode(None)
            raise
        yield from decoded


@contextmanager
def _opened(path: Path) -> "Iterator[tuple[InputContainer, VideoStream]]":
    """Open a file and its first video stream, for decoding in the calling thread."""
    import av

    try:
        only = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
        container = av.open(str(path), options=only, metadata_errors="replace")  # many old titles are not UTF-8
    except FileNotFoundError as error:
        raise ItemError(f"'{path}' does not exist") from error
    except av.error.ArgumentError as error:
        raise ItemError(
            f"'{path}' is no video file of a known format; playlists and scripts that name other files are not read"
        ) from error
    except (av.FFmpegError, OSError) as error:
        size = path.stat().st_size if path.exists() else 0
        what = _words(error) if size else "the file is empty"
        raise ItemError(f"'{path}' cannot be opened as a video: {what}") from error
    with container:
        streams = [stream for stream in container.streams.video if not _is_picture(stream)]
        if not streams:
            raise ItemError(f"'{path}' has no video stream")
        if streams[0].codec_context is None:
            raise ItemError(f"'{path}' has video in a codec that nothing here can decode")
        streams[0].thread_type = "NONE"
        yield container, streams[0]


def _is_picture(stream: "VideoStream") -> bool:
    """True for the cover picture of an audio file."""
    import av

    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _best_boundary(keyframes: NDArray[np.int64], goal: int, slack: int, context: int) -> int:
    """The multiple of `GRID` near `goal` with the fewest frames to decode and throw away; `goal` is one too."""
    reach = slack // GRID * GRID
    near = range(goal - reach, goal + reach + 1, GRID)
    return min(near, key=lambda at: (at - context - _key_before(keyframes, at - context), abs(at - goal), at))


def _key_before(keyframes: NDArray[np.int64], position: int) -> int:
    return int(keyframes[max(0, int(np.searchsorted(keyframes, position, side="right")) - 1)])


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]
