"""The comparison of platforms as a page and as a picture. Pure: figures in, HTML out."""

import base64
from collections.abc import Sequence

from gpu_jobs.forecast.comparison import NOTES, Figures, Volume, choose_when, table
from gpu_jobs.report import markup
from gpu_jobs.report.markup import Column, Html, fill, join, section
from gpu_jobs.report.style import CSS, LIGHT

_WIDTH, _BAR, _LABEL, _VALUE = 760, 26, 120, 240
_WORK, _BESIDE = "#3b76af", "#e0a33e"
_TOP = 36
"""Below the legend."""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Platforms compared · Fanfold</title>
<style>{css}</style>
</head>
<body>
<main>
<header><p class="eyebrow">Fanfold</p><h1>Platforms compared</h1><p class="where">{about}</p></header>
{body}
</main>
</body>
</html>
"""


def page(figures: Sequence[Figures], volume: Volume, source: str) -> Html:
    """The whole page. `source`: where the figures are from, in a sentence."""
    rows = table(figures)
    columns = [Column(title="") if name == "figure" else Column(title=name, style="platform") for name in rows[0]]
    body = [
        section("Figures", markup.table(columns, [list(row.values()) for row in rows]), markup.terms(NOTES)),
        section("A month in dollars", fill('<div class="scroll">{chart}</div>', chart=chart(figures))),
        section("Choose", join(fill("<p>{said}</p>", said=said) for said in choose_when(figures))),
    ]
    about = (
        f"{volume.items:,} items a month in {volume.campaigns} campaigns, {volume.max_workers} GPU workers. {source}"
    )
    return fill(_PAGE, css=Html(CSS), about=about, body=join(body))


def chart(figures: Sequence[Figures]) -> Html:
    """Bars: a month's work, and what is billed beside it."""
    most = max(each.usd_per_month_with_starts for each in figures) or 1.0
    scale = (_WIDTH - _LABEL - _VALUE) / most
    bars = [_bar(number, each, scale) for number, each in enumerate(figures)]
    return fill(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="13" fill="currentColor" role="img" '
        'aria-label="Dollars a month">{legend}{bars}</svg>',
        width=_WIDTH,
        height=_TOP + (_BAR + 12) * len(figures),
        legend=join(
            [_legend(0, _WORK, "work"), _legend(90, _BESIDE, "cold starts, idle windows and minimums, all billed")]
        ),
        bars=join(bars),
    )


def chart_uri(figures: Sequence[Figures]) -> str:
    """The chart as a `data:` address, on a light ground."""
    picture = chart(figures).replace(">", f"><style>{LIGHT}</style>", 1).encode()
    return f"data:image/svg+xml;base64,{base64.b64encode(picture).decode()}"


def _legend(left: int, colour: str, meaning: str) -> Html:
    return fill(
        '<rect x="{left}" y="4" width="12" height="12" fill="{colour}"/><text x="{text}" y="15">{meaning}</text>',
        left=left,
        text=left + 18,
        colour=colour,
        meaning=meaning,
    )


def _bar(number: int, each: Figures, scale: float) -> Html:
    work = min(each.usd_per_month, each.usd_per_month_with_starts)
    beside = each.usd_per_month_with_starts - work
    top = _TOP + number * (_BAR + 12)
    return fill(
        '<text x="0" y="{text}">{name}</text><rect x="{left}" y="{top}" width="{work}" height="{bar}" fill="{blue}"/>'
        '<rect x="{middle}" y="{top}" width="{beside}" height="{bar}" fill="{yellow}"/>'
        '<text x="{right}" y="{text}">${usd} (work alone ${alone})</text>',
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
