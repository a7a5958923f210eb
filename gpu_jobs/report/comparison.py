"""The comparison of platforms as a page and as a picture. Pure: it takes figures and returns HTML."""

from collections.abc import Sequence

from markupsafe import Markup

from gpu_jobs.forecast.comparison import NOTES, Figures, Volume, choose_when, table
from gpu_jobs.report.markup import Column, Table, fill, svg_address

_WIDTH, _BAR, _LABEL, _VALUE = 760, 26, 120, 240
_WORK, _BESIDE = "#3b76af", "#e0a33e"
_TOP = 36
"""Pixels from the top of the chart to the first bar, with room for the legend."""


def page(figures: Sequence[Figures], volume: Volume, source: str) -> Markup:
    """The whole page. `source` is a sentence that says where the figures are from."""
    rows = table(figures)
    columns = [Column(title="") if name == "figure" else Column(title=name, style="platform") for name in rows[0]]
    return fill(
        "comparison.html.j2",
        volume=volume,
        source=source,
        figures=Table(columns=columns, rows=[list(row.values()) for row in rows]),
        notes=NOTES,
        chart=chart(figures),
        choices=choose_when(figures),
    )


def chart(figures: Sequence[Figures]) -> Markup:
    """A chart of bars: the cost of a month's work, and what is billed in addition."""
    most = max(each.usd_per_month_with_starts for each in figures) or 1.0
    scale = (_WIDTH - _LABEL - _VALUE) / most
    bars = [_bar(number, each, scale) for number, each in enumerate(figures)]
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="13" fill="currentColor" role="img" '
        'aria-label="Dollars a month">{legend}{bars}</svg>'
    ).format(
        width=_WIDTH,
        height=_TOP + (_BAR + 12) * len(figures),
        legend=_legend(0, _WORK, "work")
        + _legend(90, _BESIDE, "cold starts, idle time and minimum charges, all billed"),
        bars=Markup("\n").join(bars),
    )


def chart_uri(figures: Sequence[Figures]) -> str:
    """The chart as a `data:` address, on a light background."""
    style = Markup("><style>{}</style>").format(fill("light.css"))
    return svg_address(chart(figures).replace(">", style, 1))


def _legend(left: int, colour: str, meaning: str) -> Markup:
    return Markup(
        '<rect x="{left}" y="4" width="12" height="12" fill="{colour}"/><text x="{text}" y="15">{meaning}</text>'
    ).format(
        left=left,
        text=left + 18,
        colour=colour,
        meaning=meaning,
    )


def _bar(number: int, each: Figures, scale: float) -> Markup:
    work = min(each.usd_per_month, each.usd_per_month_with_starts)
    beside = each.usd_per_month_with_starts - work
    top = _TOP + number * (_BAR + 12)
    return Markup(
        '<text x="0" y="{text}">{name}</text><rect x="{left}" y="{top}" width="{work}" height="{bar}" fill="{blue}"/>'
        '<rect x="{middle}" y="{top}" width="{beside}" height="{bar}" fill="{yellow}"/>'
        '<text x="{right}" y="{text}">${usd} (work alone ${alone})</text>'
    ).format(
        blue=_WORK,
        yellow=_BESIDE,
        name=each.platform,
        left=_LABEL,
        top=top,
        bar=_BAR,
        text=top + 18,
        work=f"{work * scale:.1f}",
        middle=f"{_LABEL + work * scale:.1f}",
        beside=f"{beside * scale:.1f}",
        right=f"{_LABEL + (work + beside) * scale + 8:.1f}",
        usd=f"{each.usd_per_month_with_starts:.2f}",
        alone=f"{each.usd_per_month:.2f}",
    )
