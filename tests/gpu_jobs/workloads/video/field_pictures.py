"""An H.264 stream of 64 x 64 pixels whose pictures are fields: no encoder here writes such, but broadcasters do."""

RATE, KEYFRAME_EVERY = 25, 10


class Bits:
    def __init__(self):
        self._bits = ""

    def put(self, count, value=0):
        self._bits += f"{int(value):0{count}b}" if count else ""
        return self

    def golomb(self, *values):
        """Exp-Golomb codes (ITU-T H.264, 9.1)."""
        for value in values:
            length = (value + 1).bit_length()
            self.put(length - 1).put(length, value + 1)
        return self

    def align(self):
        return self.put(-len(self._bits) % 8)

    def unit(self, importance, kind):
        """The NAL unit, with trailing bits and emulation prevention bytes."""
        self.put(1, 1).align()
        raw = int(self._bits, 2).to_bytes(len(self._bits) // 8, "big")
        escaped, zeros = bytearray([importance << 5 | kind]), 0
        for byte in raw:
            if zeros >= 2 and byte <= 3:
                escaped.append(3)
                zeros = 0
            escaped.append(byte)
            zeros = 0 if byte else zeros + 1
        return b"\0\0\0\1" + bytes(escaped)


def stream(num_frames, *, is_whole):
    """Bytes of a stream; `is_whole(number)` tells which frames are one picture, and not two fields."""
    main, level, aligned = 77, 30, 25
    parameters = Bits().put(8, main).put(8).put(8, level).golomb(0, 0, 0, 4, 1).put(1).golomb(3, 1)
    parameters.put(1).put(1).put(1, 1).put(1)  # fields, no mbaff, direct_8x8, no cropping
    parameters.put(1, 1).put(5, 1).put(32, 1).put(32, 2 * RATE).put(1, 1).put(5)
    pictures = Bits().golomb(0, 0).put(2).golomb(0, 0, 0).put(3).golomb(0, 0, 0).put(1, 1).put(2)
    out = parameters.unit(3, 7) + pictures.unit(3, 8)
    for number in range(num_frames):
        in_group, whole = number % KEYFRAME_EVERY, is_whole(number)
        for bottom in (0,) if whole else (0, 1):
            is_key = not in_group and not bottom
            out += Bits().put(3, 7).unit(0, 9)
            picture = Bits().golomb(0, 7, 0).put(4, in_group).put(1, not whole)
            if not whole:
                picture.put(1, bottom)
            if is_key:
                picture.golomb(number // KEYFRAME_EVERY % 2)
            picture.put(8, in_group * 2 + bottom).put(2 if is_key else 1).golomb(0, 1)
            for block in range(16 if whole else 8):
                picture.golomb(aligned).align()  # macroblocks of plain samples
                shade = (number * 5 + block * 8) % 200 + 20
                picture.put(8 * 256, int.from_bytes(bytes([shade]) * 256, "big"))
                picture.put(8 * 128, int.from_bytes(bytes([128]) * 128, "big"))
            out += picture.unit(2, 5 if is_key else 1)
    return out
