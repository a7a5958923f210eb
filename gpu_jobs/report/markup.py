"""Fills the templates of the pages, with autoescape on, and defines the values that several templates show."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gpu_jobs.durations import duration
from gpu_jobs.report import formats

_JPEG = b"\xff\xd8\xff"
_TEMPLATES = Environment(
    loader=PackageLoader("gpu_jobs.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters |= {
    each.__name__: each
    for each in (
        duration,
        formats.count,
        formats.moment,
        formats.position,
        formats.rate,
        formats.several,
        formats.share,
        formats.short_name,
        formats.size,
        formats.usd,
    )
}


def fill(template: str, **values: object) -> Markup:
    """Fill a file of `templates/`; every value that is not `Markup` is escaped."""
    return Markup(_TEMPLATES.get_template(template).render(values))  # noqa: S704 - autoescape is on


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The title and the look of a table's column."""

    title: str
    style: str = ""
    """The CSS class of its cells: "num" (right-aligned), "mono", "wide" (may break anywhere) or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; its cells are texts or `Markup`."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]


class Pictures:
    """Puts JPEGs into the page itself, until their total size reaches a limit."""

    def __init__(self, budget_bytes: int) -> None:
        self._left_bytes = budget_bytes

    def address(self, jpeg: bytes | None) -> str:
        """The picture as a `data:` address; "" if it is not a JPEG or if the limit is reached."""
        if not jpeg or not jpeg.startswith(_JPEG) or len(jpeg) > self._left_bytes:
            return ""
        self._left_bytes -= len(jpeg)
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"


def svg_address(drawing: str) -> str:
    """An SVG drawing as a `data:` address."""
    return f"data:image/svg+xml;base64,{base64.b64encode(drawing.encode()).decode('ascii')}"


def cell(value: object, limit: int = 160) -> str:
    """Any value of an output table, short enough for a cell."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return formats.size(len(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return formats.clipped(", ".join(f"{key}: {cell(each, 40)}" for key, each in value.items()), limit)
    if isinstance(value, list | tuple):
        shown = ", ".join(cell(each, 40) for each in value[:3])
        return formats.clipped(f"[{shown}]" if len(value) <= 3 else f"[{shown}, … {len(value)} values]", limit)  # noqa: PLR2004
    return formats.clipped(str(value), limit)
