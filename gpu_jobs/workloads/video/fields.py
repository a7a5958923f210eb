"""Tells whether an H.264 stream may hold pictures of one field, two of which are one frame."""

_WITH_CHROMA = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
"""Profiles whose sequence parameter set describes the chroma format."""
_SEQUENCE_PARAMETERS = 7
_YUV444 = 3


def may_be_fields(extradata: bytes | None) -> bool:
    """Whether frame_mbs_only_flag (ITU-T H.264, 7.3.2.1.1) is 0, or cannot be found.

    Args:
        extradata: the codec's headers, as MP4 (ISO/IEC 14496-15, 5.3.3.1) or byte streams store them.
    """
    try:
        return _allows_fields(_first_parameters(extradata or b""))
    except (IndexError, ValueError):
        return True


def _first_parameters(extradata: bytes) -> bytes:
    """Return the first sequence parameter set without its emulation prevention bytes."""
    if extradata[0] == 1:
        found = extradata[8 : 8 + int.from_bytes(extradata[6:8], "big")]
    else:
        units = extradata.split(b"\x00\x00\x01")[1:]
        found = next((unit for unit in units if unit and unit[0] & 31 == _SEQUENCE_PARAMETERS), b"")
    return found.replace(b"\x00\x00\x03", b"\x00\x00")


def _allows_fields(parameters: bytes) -> bool:
    profile, bits = parameters[1], _Bits(parameters[4:])
    bits.golomb()
    if profile in _WITH_CHROMA:
        _skip_chroma(bits)
    bits.golomb()
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.bit()
        for _ in range(2):
            bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()
    bits.bit()
    for _ in range(2):
        bits.golomb()
    return not bits.bit()


def _skip_chroma(bits: "_Bits") -> None:
    chroma = bits.golomb()
    if chroma == _YUV444:
        bits.bit()
    for _ in range(2):
        bits.golomb()
    bits.bit()
    if not bits.bit():
        return
    for number in range(12 if chroma == _YUV444 else 8):
        if bits.bit():
            _skip_scaling(bits, 16 if number < 6 else 64)  # noqa: PLR2004 - six of 4x4, then those of 8x8


def _skip_scaling(bits: "_Bits", size: int) -> None:
    value = 8
    for _ in range(size):
        value = (value + bits.signed_golomb()) % 256
        if not value:
            return


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self._at = 0

    def bit(self) -> int:
        self._at += 1
        return int(self._bits[self._at - 1])

    def golomb(self) -> int:
        """Read an Exp-Golomb code (9.1), whose sign, if it has one, is not wanted."""
        one = self._bits.index("1", self._at)
        stop = 2 * one - self._at + 1
        value, self._at = int(self._bits[one:stop], 2) - 1, stop
        return value

    def signed_golomb(self) -> int:
        code = self.golomb()
        return (code + 1) // 2 if code % 2 else -(code // 2)
