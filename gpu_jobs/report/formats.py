"""Numbers and times as texts for people."""

from collections.abc import Sequence
from datetime import UTC, datetime

_MAX_LISTED = 3
_UNITS = (("B", 1), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12))


def count(number: int, noun: str = "") -> str:
    """A number and its noun, such as `1,204 items` or `1 item`."""
    text = f"{number:,}"
    return f"{text} {noun if number == 1 else noun + 's'}" if noun else text


def several(values: Sequence[str]) -> str:
    """The first few values, and the number of the others."""
    rest = len(values) - _MAX_LISTED
    return "; ".join(values[:_MAX_LISTED]) + (f"; and {rest:,} more" if rest > 0 else "")


def rate(per_s: float) -> str:
    """A rate with three significant digits, such as 0.158, 12.3 or 1,234."""
    if per_s == 0:
        return "0"
    digits = next((digits for limit, digits in ((0.01, 4), (1, 3), (10, 2), (100, 1)) if per_s < limit), 0)
    return f"{per_s:,.{digits}f}"


def position(at_s: float) -> str:
    """A position in a video as `mm:ss.f`, or `h:mm:ss.f` from one hour on."""
    tenths = round(at_s * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes:02d}:{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{text}" if hours else text


def usd(dollars: float) -> str:
    return "under $0.01" if 0 < dollars < 0.005 else f"${dollars:,.2f}"  # noqa: PLR2004 - half a cent


def share(fraction: float) -> str:
    """A fraction as a percentage; only exactly 0 and 1 are shown as 0% and 100%."""
    percent = round(fraction * 100)
    if percent == 0 and fraction > 0:
        return "<1%"
    return ">99%" if percent == 100 and fraction < 1 else f"{percent}%"  # noqa: PLR2004


def size(num_bytes: int) -> str:
    unit, factor = next(pair for pair in reversed(_UNITS) if num_bytes >= pair[1] or pair[1] == 1)
    return f"{num_bytes:,} B" if unit == "B" else f"{num_bytes / factor:.1f} {unit}"


def moment(at: datetime | float) -> str:
    """An instant in UTC; a number counts as seconds since the epoch."""
    when = datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) else at.astimezone(UTC)
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"


def short_name(uri: str) -> str:
    """The last part of a path or address."""
    return uri.rstrip("/").rpartition("/")[2] or uri


def printable(text: str) -> str:
    """The text without control characters, which could change a terminal: each becomes a space."""
    return "".join(char if char.isprintable() else " " for char in text)


def clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
