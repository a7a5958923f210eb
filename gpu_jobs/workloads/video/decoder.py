"""Decodes a whole file from its start, past all damage, and says which frames the damage costs.

Damage costs all that may refer to it: in decoding order, the frames from the damaged packet to the next keyframe, and
those that are decoded after that keyframe but shown before it.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gpu_jobs.workloads.video.container import words
from gpu_jobs.workloads.video.packets import DISCONTINUITY_S, NO_PTS, readable

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

_MOST_WAITING = 16
"""Codecs reorder at most this many frames."""
_HOLE = 1.5
"""A frame that comes later than this many durations after the one before it shows that another is lost between them."""
_SILENT = frozenset({"hevc", "vvc"})
"""Decoders that neither tell nor mend that a part of a frame is lost: the picture holds what was in memory there."""


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
    """Yield all frames in presentation order, missing ones without a picture.

    Args:
        container: the opened file.
        stream: its video stream.
        is_strict: fail on each error in the data, where decoders would make up a picture.
    """
    codec, waiting = stream.codec_context, _Waiting()
    codec.copy_opaque = True  # frames carry what their packets carried
    if is_strict:
        codec.options = {"err_detect": "explode"}
    is_ts = container.format.name == "mpegts"
    groups: deque[_Group] = deque()
    group, doubt = _Group(NO_PTS, None), _Doubt(is_silent=codec.name in _SILENT)
    for number, packet in enumerate(readable(container, stream)):
        doubt.look(number, packet)
        if not doubt.is_open:
            yield from waiting.ready()
        if packet.is_keyframe:
            group = _Group(_stamp(packet.pts), group)
            groups.append(group)
            if len(groups) > 2 * _MOST_WAITING:
                groups.popleft().forget()
        if packet.is_corrupt:
            doubt.open(number, group) if is_ts else group.spoil(number, "its data is cut off")
        packet.opaque = (group, number)  # one object for each packet, as PyAV wants it
        waiting.expect(number)
        frames, problem = _decode(packet)
        if problem:
            group.spoil(number, problem)
            waiting.fail(_Entry(number, _stamp(packet.dts if packet.pts is None else packet.pts), None, group), packet)
        for frame in frames:
            owner, origin = frame.opaque if isinstance(frame.opaque, tuple) else (group, number)
            if frame.is_corrupt:
                owner.spoil(origin, "its data is damaged")
            waiting.add(_Entry(origin, _stamp(frame.pts), frame, owner))
    doubt.close()
    yield from waiting.rest()


def _decode(packet: "Packet[Any]") -> "tuple[Sequence[VideoFrame], str]":
    """Return the frames that a packet gives, and why it fails."""
    import av

    try:
        return packet.decode(), ""
    except av.FFmpegError as error:
        return (), f"its data is damaged: {words(error)}"


class _Group:
    """The packets from a keyframe to the next one, in decoding order."""

    def __init__(self, key_pts: int, before: "_Group | None") -> None:
        self._key_pts, self._before = key_pts, before
        self._since, self._why = 0, ""

    def forget(self) -> None:
        """Let the groups before it go: none of its frames is waited for."""
        self._before = None

    def spoil(self, number: int, why: str) -> None:
        """Note that a packet is damaged."""
        if not self._why or number < self._since:
            self._since, self._why = number, why

    def why_missing(self, number: int, pts: int) -> str:
        """Say why the frame of a packet cannot be used; "" if it can."""
        if self._why and number >= self._since:
            return self._why
        is_leading = NO_PTS not in (pts, self._key_pts) and pts < self._key_pts
        return self._before._why if is_leading and self._before is not None else ""  # noqa: SLF001


class _Doubt:
    """Decides what a jump of a transport stream's continuity counter means: lost data, or two recordings joined.

    As a rule the decoder tells, since data that lack a part cannot be decoded. It cannot tell if a whole frame is lost.
    FFmpeg's parser marks the frame before the one in which the counter jumps, so the next two packets are looked at.
    """

    def __init__(self, *, is_silent: bool) -> None:
        self._is_silent = is_silent
        self._number = 0
        self._group: _Group | None = None
        self._dts: int | None = None

    @property
    def is_open(self) -> bool:
        return self._group is not None

    def open(self, number: int, group: _Group) -> None:
        if self._group is None:
            self._number, self._group = number, group

    def look(self, number: int, packet: "Packet[Any]") -> None:
        """Compare the next packet's time with that of the one before."""
        before, self._dts = self._dts, packet.dts
        if self._group is None:
            return
        step = None if before is None or packet.dts is None else packet.dts - before
        is_join = step is not None and (step < 0 or step * packet.time_base > DISCONTINUITY_S)
        if is_join:
            self._group = None
        elif step is not None and packet.duration and step > _HOLE * packet.duration and not packet.is_keyframe:
            self._group.spoil(self._number, "frames are lost")
            self._group = None
        elif number >= self._number + 2:
            self.close()

    def close(self) -> None:
        """Nothing more is known: believe the decoder, if it is one that tells."""
        if self._group is not None and self._is_silent:
            self._group.spoil(self._number, "data is lost")
        self._group = None


class _Entry(NamedTuple):
    number: int
    """The number of its packet, in decoding order."""
    pts: int
    frame: "VideoFrame | None"
    group: _Group


class _Waiting:
    """Holds frames until those decoded before them are out, since these may turn out to be damaged."""

    def __init__(self) -> None:
        self._expected: dict[int, None] = {}
        """Numbers of packets, rising, whose frame is not out yet."""
        self._queue: deque[_Entry] = deque()
        self._failed: deque[_Entry] = deque()
        self._at = 0

    def expect(self, number: int) -> None:
        self._expected[number] = None
        self._expected.pop(number - 2 * _MOST_WAITING, None)  # not every packet is a frame

    def add(self, entry: _Entry) -> None:
        self._expected.pop(entry.number, None)
        self._queue.append(entry)

    def fail(self, entry: _Entry, packet: "Packet[Any]") -> None:
        self._expected.pop(entry.number, None)
        if not packet.is_discard:  # nobody would see it
            self._failed.append(entry)

    def ready(self) -> Iterator[Shown]:
        """Yield the frames that nothing can spoil any more."""
        while self._queue and (self._is_settled(self._queue[0]) or len(self._queue) > _MOST_WAITING):
            yield from self._next()

    def rest(self) -> Iterator[Shown]:
        while self._queue:
            yield from self._next()
        yield from map(self._shown, self._failed)

    def _is_settled(self, entry: _Entry) -> bool:
        return next(iter(self._expected), entry.number) >= entry.number

    def _next(self) -> Iterator[Shown]:
        entry = self._queue.popleft()
        while self._failed and self._failed[0].number < entry.number:
            yield self._shown(self._failed.popleft())
        yield self._shown(entry)

    def _shown(self, entry: _Entry) -> Shown:
        why = entry.group.why_missing(entry.number, entry.pts)
        self._at += 1
        return Shown(self._at - 1, entry.pts, None if why else entry.frame, why)


def _stamp(pts: int | None) -> int:
    return NO_PTS if pts is None else pts
