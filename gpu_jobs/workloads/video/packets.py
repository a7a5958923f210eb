"""Reads the packets of a video, judges whether they tell which frames it has, and decodes them one after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_jobs.workloads.video.container import words

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

NO_PTS = -(1 << 63)
_DISCONTINUITY_S = 10
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


def read(container: "InputContainer", stream: "VideoStream") -> Packets:
    """Read all packets of a stream, without decoding."""
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
    if seen and seen[-1].is_corrupt:
        seen.pop()  # the file ends in the middle of it
    has_losses = any(each.is_corrupt for each in seen)
    time_base, name = stream.time_base or Fraction(1, 1000), container.format.name
    longest_gap = int(_DISCONTINUITY_S / time_base) if name == "mpegts" else 0
    pts, keyframes = _in_order(seen)
    return Packets(
        pts=pts,
        keyframes=keyframes,
        time_base=time_base,
        ticks=ticks or _usual_ticks(stream, time_base),
        pixel_shape=Fraction(stream.sample_aspect_ratio or 1),
        is_trusted=not has_losses and _are_trusted(stream, name, seen, longest_gap),
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


class Shown(NamedTuple):
    """One frame of a video in its place."""

    at: int
    """Its position in the video."""
    pts: int
    """Its presentation timestamp; if it has none, `NO_PTS`."""
    frame: "VideoFrame | None"
    """None if it is missing: damaged, or never decoded."""
    why: str = ""
    """Why it is missing."""


def decoded(container: "InputContainer", stream: "VideoStream", *, is_strict: bool) -> Iterator[Shown]:
    """Decode a file from its start, past all damage; after damage, frames count as missing up to the next keyframe.

    Args:
        container: the opened file.
        stream: its video stream.
        is_strict: fail on each error in the data, where decoders would make up a picture.
    """
    import av

    codec, damage, at = stream.codec_context, "", 0
    codec.copy_opaque = True  # frames carry what their packets carried
    if is_strict:
        codec.options = {"err_detect": "explode"}
    for packet in readable(container, stream):
        damage = "" if packet.is_keyframe else damage
        packet.opaque = (damage,)  # one object for each packet, as PyAV wants it
        try:
            frames: Sequence[VideoFrame] = packet.decode()
        except av.FFmpegError as error:
            damage = f"its data is damaged: {words(error)}"
            if not packet.is_discard:
                yield Shown(at, _stamp(packet.pts), None, damage)
                at += 1
            continue
        for frame in frames:
            if frame.is_corrupt:
                damage = damage or "its data is damaged"
            why = damage if frame.is_corrupt else _damage_of(frame)
            yield Shown(at, _stamp(frame.pts), None if why else frame, why)
            at += 1


def readable(container: "InputContainer", stream: "VideoStream") -> "Iterator[Packet[Any]]":
    """Yield packets as far as the file can be read, without empty ones (Theora: the frame before stays)."""
    import av

    try:
        for packet in container.demux(stream):
            if packet.size or packet.dts is None:  # the last one, which makes the decoder give what it holds back
                yield packet
    except (av.FFmpegError, OSError):
        return  # `Packets.problem` says why


def _damage_of(frame: "VideoFrame") -> str:
    return frame.opaque[0] if isinstance(frame.opaque, tuple) else ""


def _stamp(pts: int | None) -> int:
    return NO_PTS if pts is None else pts
