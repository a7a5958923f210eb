"""Pictures as a person sees them: upright, not mirrored, with square pixels."""

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpu_jobs.errors import ItemError
from gpu_jobs.workloads.video.container import MAX_PIXELS

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.reformatter import VideoReformatter

_SQUARE = Fraction(1)
_UNIT = 1 << 16
"""1.0 in the first two columns of a display matrix (ISO/IEC 14496-12, 8.3.2.3)."""


@dataclass(frozen=True, slots=True)
class Turn:
    """How a decoded picture must be changed to be seen upright: first transposed, then mirrored."""

    is_transposed: bool = False
    is_mirrored_x: bool = False
    is_mirrored_y: bool = False

    @classmethod
    def of(cls, frame: "VideoFrame") -> "Turn":
        """Read a frame's display matrix. Raises `ItemError` if it turns by something else than quarters."""
        found: Any = frame.side_data.get("DISPLAYMATRIX")
        if found is None:
            return _UPRIGHT
        a, b, _, c, d = (value / _UNIT for value in np.frombuffer(bytes(found), np.int32)[:5].tolist())
        if abs(b) + abs(c) < abs(a) + abs(d):
            is_transposed, x, y, rest = False, a, d, (b, c)
        else:
            is_transposed, x, y, rest = True, c, b, (a, d)
        if max(map(abs, rest)) > 0.01 * max(abs(x), abs(y)):  # a rounding error of a quarter turn
            raise ItemError(f"the video is turned by {frame.rotation} degrees; only quarter turns are read")
        return cls(is_transposed, x < 0, y < 0)

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Turn an array [height, width, ...]."""
        if self == _UPRIGHT:
            return pixels
        if self.is_transposed:
            pixels = pixels.swapaxes(0, 1)
        if self.is_mirrored_x:
            pixels = pixels[:, ::-1]
        if self.is_mirrored_y:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)


_UPRIGHT = Turn()


class Picture:
    """One decoded frame, and how it is to be seen."""

    __slots__ = ("_frame", "height", "turn", "width")

    def __init__(self, frame: "VideoFrame", pixel_shape: Fraction = _SQUARE) -> None:
        """Take a frame, and the width of its pixels divided by their height.

        Raises:
            ItemError: it is turned by something else than quarters, or too large.
        """
        width, height = max(1, round(frame.width * pixel_shape)), frame.height
        if width * height > MAX_PIXELS:
            raise ItemError(f"a picture has {width} x {height} pixels; at most {MAX_PIXELS} are read")
        self._frame = frame
        self.turn = Turn.of(frame)
        self.width, self.height = (height, width) if self.turn.is_transposed else (width, height)
        """Size in which a person sees it, in square pixels."""

    def scaled(self, width: int, height: int, pixel_format: str, by: "VideoReformatter") -> "VideoFrame":
        """Return it in the size in which it is to be seen once `turn` has been applied."""
        if self.turn.is_transposed:
            width, height = height, width
        return by.reformat(self._frame, width, height, pixel_format, interpolation="BILINEAR")

    def rgb(self, width: int, height: int, by: "VideoReformatter | None" = None) -> NDArray[np.uint8]:
        """Return the upright picture, scaled, as RGB [height, width, 3]."""
        from av.video.reformatter import VideoReformatter

        pixels: Any = self.scaled(width, height, "rgb24", by or VideoReformatter()).to_ndarray()
        return self.turn.apply(pixels)
