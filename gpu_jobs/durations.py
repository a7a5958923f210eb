"""How long something took or will take, as people read it."""

import math

_TENTHS_BELOW_S = 9.95
_DAY, _HOUR, _MINUTE = (86_400, "d"), (3600, "h"), (60, "min")
_PAIRS = ((*_DAY, *_HOUR), (*_HOUR, *_MINUTE), (*_MINUTE, 1, "s"))


def duration(seconds: float) -> str:
    """`0.012 s`, `8.4 s`, `45 s`, `1 min 20 s`, `2 h 05 min` or `3 d 4 h`: never more than two units."""
    if math.isinf(seconds):
        return "forever"
    if abs(seconds) < _TENTHS_BELOW_S:
        return f"{round(seconds, 3):.2g} s"
    for large_s, large, small_s, small in _PAIRS:
        number, rest_s = divmod(small_s * round(seconds / small_s), large_s)
        if number > 0:
            rest = f" {rest_s // small_s:{'d' if small == 'h' else '02d'}} {small}" if rest_s else ""
            return f"{number} {large}{rest}"
    return f"{round(seconds)} s"
