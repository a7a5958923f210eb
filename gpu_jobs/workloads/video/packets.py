"""Reads the packets of a video, and judges whether they tell which frames it has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_jobs.workloads.video import fields
from gpu_jobs.workloads.video.container import words

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

NO_PTS = -(1 << 63)
DISCONTINUITY_S = 10
"""A longer jump between two packets of a transport stream is a jump of its clock, not a pause; so it is for FFmpeg."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packets:
    """What the packets of a video tell, without decoding."""

    pts: NDArray[np.int64]
    """Presentation timestamp (PTS) of each packet that is shown, in presentation order; all differ if trusted."""
    keyframes: NDArray[np.int64]
    """Positions of the keyframes among them, and 0, since decoding may always begin at the start of the file."""
    time_base: Fraction
    ticks: int
    """The usual time between two frames, in `time_base`."""
    pixel_shape: Fraction
    """The width of a pixel divided by its height; 1 if the file does not say."""
    is_trusted: bool
    """Whether each packet is one frame at a time of its own, and decoding may begin at each keyframe."""
    may_be_fields: bool
    """Whether two packets may be one frame, so that only decoding tells whether `is_trusted` is right."""
    has_losses: bool
    """Whether the container knows that data is missing, so that decoders must not make up what they lack."""
    longest_gap: int
    """A longer jump of times, in `time_base`, is one of the clock; 0: times may jump."""
    is_even: bool
    """Whether frames follow one another evenly, though their times may not say so (MPEG program streams)."""
    num_announced: int
    """How many frames the container announces; 0: it does not."""
    num_read: int
    problem: str
    """Why the file cannot be read to its end; "" if it can."""


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    is_key: bool
    is_shown: bool
    is_corrupt: bool


def read(container: "InputContainer", stream: "VideoStream", *, is_cut_short: bool) -> Packets:
    """Read all packets of a stream, without decoding; the last one is left out if the file ends in the middle of it."""
    import av

    seen: list[_Packet] = []
    ticks, problem = 0, ""
    is_vp8 = stream.codec_context.name == "vp8"
    try:
        for packet in container.demux(stream):
            if packet.size:
                shown = _is_shown(packet, is_vp8=is_vp8)
                seen.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, shown, packet.is_corrupt))
                ticks = packet.duration or ticks
    except (av.FFmpegError, OSError) as error:
        problem = f"the file cannot be read further: {words(error)}"
    time_base, name = stream.time_base or Fraction(1, 1000), container.format.name
    if seen and (seen[-1].is_corrupt or (is_cut_short and name == "mpegts")):
        seen.pop()
    has_losses = any(each.is_corrupt for each in seen)
    may_be_fields = stream.codec_context.name == "h264" and fields.may_be_fields(stream.codec_context.extradata)
    if may_be_fields:
        ticks = 0  # a packet may last half a frame
    longest_gap = int(DISCONTINUITY_S / time_base) if name == "mpegts" else 0
    pts, keyframes = _in_order(seen)
    return Packets(
        pts=pts,
        keyframes=keyframes,
        time_base=time_base,
        ticks=ticks or _usual_ticks(stream, time_base),
        pixel_shape=Fraction(stream.sample_aspect_ratio or 1),
        is_trusted=not has_losses and _are_trusted(stream, name, seen, longest_gap),
        may_be_fields=may_be_fields,
        has_losses=has_losses,
        longest_gap=longest_gap,
        is_even=name == "mpeg",
        num_announced=stream.frames if "mp4" in name else 0,  # other formats only estimate it
        num_read=len(seen),
        problem=problem,
    )


def _is_shown(packet: "Packet[Any]", *, is_vp8: bool) -> bool:
    """False for a packet outside of the edit list, and for VP8's frames that only others refer to (RFC 6386, 9.1)."""
    return not packet.is_discard and not (is_vp8 and not bytes(packet)[0] & 0x10)


def _in_order(seen: Sequence[_Packet]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return times and keyframes of the packets that are shown; those before the first keyframe cannot be decoded."""
    stamped = [(each.pts if each.pts is not None else each.dts, each) for each in seen]
    first_key = min((at for at, each in stamped if at is not None and each.is_key), default=None)
    shown = sorted(
        (at, each.is_key)
        for at, each in stamped
        if at is not None and each.is_shown and first_key is not None and at >= first_key
    )
    keys = {position for position, (_, is_key) in enumerate(shown) if is_key} | ({0} if shown else set())
    return np.array([at for at, _ in shown], dtype=np.int64), np.array(sorted(keys), dtype=np.int64)


def _are_trusted(stream: "VideoStream", container: str, seen: Sequence[_Packet], longest_gap: int) -> bool:
    codec = stream.codec_context
    has_only_keys = all(each.is_key for each in seen)
    if container == "avi" and not has_only_keys:
        return False  # it stores no presentation times: the order of packets is not that of frames
    if codec.pix_fmt == "pal8" or container == "mpeg":
        return False  # the palette comes once, at the start; program streams store times of some packets only
    return _have_own_times(seen, is_reordered=codec.has_b_frames and not has_only_keys, hides=codec.name == "vp8") and (
        _have_one_clock(seen, longest_gap)
    )


def _have_own_times(seen: Sequence[_Packet], *, is_reordered: bool, hides: bool) -> bool:
    """Whether each packet that is shown has a time of its own, and those that are hidden lie before and after them."""
    stamps = [
        at for each in seen if (at := each.dts if each.pts is None and not is_reordered else each.pts) is not None
    ]
    if len(stamps) < len(seen) or (is_reordered and all(each.pts == each.dts for each in seen)):
        return False  # somebody stored no presentation times, or copied decode times into them
    shown = [pts for pts, each in zip(stamps, seen, strict=True) if each.is_shown]
    if not shown or len(set(shown)) < len(shown):
        return False
    first, last = min(shown), max(shown)
    return hides or all(each.is_shown or not first < pts < last for pts, each in zip(stamps, seen, strict=True))


def _have_one_clock(seen: Sequence[_Packet], longest_gap: int) -> bool:
    steps = np.diff(np.array([each.dts for each in seen if each.dts is not None], dtype=np.int64))
    return not ((steps < 0).any() or (longest_gap and (steps > longest_gap).any()))


def _usual_ticks(stream: "VideoStream", time_base: Fraction) -> int:
    rate = stream.average_rate or stream.guessed_rate
    return max(1, round(1 / (rate * time_base))) if rate else 1


def readable(container: "InputContainer", stream: "VideoStream") -> "Iterator[Packet[Any]]":
    """Yield packets as far as the file can be read, without empty ones (Theora: the frame before stays)."""
    import av

    try:
        for packet in container.demux(stream):
            if packet.size or packet.dts is None:  # the last one, which makes the decoder give what it holds back
                yield packet
    except (av.FFmpegError, OSError):
        return  # `Packets.problem` says why
