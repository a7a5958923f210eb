"""HTML that escapes by default: only `fill`'s templates, which are ours, are taken as markup."""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpu_jobs.report import formats

_JPEG = b"\xff\xd8\xff"


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


EMPTY = Html("")


def escape(value: object) -> Html:
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def fill(template: str, **values: object) -> Html:
    """Put values into the `{name}` places of a literal template, escaped unless they are `Html`."""
    return Html(template.format_map({name: escape(value) for name, value in values.items()}))


def join(pieces: Iterable[Html], between: str = "\n") -> Html:
    return Html(between.join(pieces))


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """How a column of a table looks."""

    title: str
    style: str = ""
    """Class of its cells: "num" (right-aligned), "mono", "wide" (may break anywhere) or none."""


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> Html:
    """A table that scrolls sideways by itself where the page is too narrow."""
    head = join((fill('<th class="{style}">{title}</th>', style=one.style, title=one.title) for one in columns), "")
    body = join(
        fill(
            "<tr>{cells}</tr>",
            cells=join(
                (
                    fill('<td class="{style}">{value}</td>', style=column.style, value=value)
                    for column, value in zip(columns, row, strict=True)
                ),
                "",
            ),
        )
        for row in rows
    )
    return fill(
        '<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>',
        head=head,
        body=body,
    )


def terms(pairs: Iterable[tuple[str, object]]) -> Html:
    """A list of names and what they stand for."""
    inside = join(fill("<dt>{name}</dt><dd>{value}</dd>", name=name, value=value) for name, value in pairs)
    return fill("<dl>{inside}</dl>", inside=inside)


def section(title: str, *pieces: Html, note: object = "") -> Html:
    lead = fill('<p class="note">{note}</p>', note=note) if note else EMPTY
    return fill("<section><h2>{title}</h2>{lead}\n{inside}</section>", title=title, lead=lead, inside=join(pieces))


class Pictures:
    """Puts JPEGs into the page itself, until they are too many for one page."""

    def __init__(self, budget_bytes: int) -> None:
        self._left_bytes = budget_bytes

    def img(self, jpeg: bytes | None) -> Html:
        """The picture, or an empty frame of its size."""
        if not jpeg or not jpeg.startswith(_JPEG) or len(jpeg) > self._left_bytes:
            return Html('<div class="no-picture"></div>')
        self._left_bytes -= len(jpeg)
        return fill('<img alt="" src="data:image/jpeg;base64,{data}">', data=base64.b64encode(jpeg).decode("ascii"))


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
