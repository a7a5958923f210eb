"""The timeline as a separate picture, for pages that allow no inline SVG, such as Prefect's UI. Pure."""

from markupsafe import Markup

from gpu_jobs.report import timeline
from gpu_jobs.report.facts import Facts
from gpu_jobs.report.markup import fill, svg_address

MAX_BARS = 500
"""With more attempts than this each lane shows sums of seconds, since the picture is text inside a page."""
_WIDTH_PX, _MARGIN_PX, _LEGEND_PX = 1100, 24, 40
_LEGEND_STEP_PX = 215


def timeline_uri(facts: Facts) -> str:
    """The picture as a `data:` address; "" if there is nothing to draw."""
    return svg_address(draw(facts)) if facts.workers else ""


def draw(facts: Facts) -> Markup:
    """Draw the lanes and the meaning of their colours, on a light background."""
    attempts = facts.attempts if facts.attempts and len(facts.attempts) <= MAX_BARS else None
    lanes = timeline.draw(facts.workers, attempts)
    height = timeline.height(len(facts.workers)) + 2 * _MARGIN_PX + _LEGEND_PX
    names = timeline.names(facts.workers, attempts)
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif">\n<style>{css}</style>\n'
        '<rect width="100%" height="100%" rx="6" fill="var(--page)"/>\n'
        '<svg x="{margin}" y="{margin}" width="{inner}">{lanes}</svg>\n{legend}\n</svg>'
    ).format(
        width=_WIDTH_PX,
        height=height,
        css=fill("light.css") + fill("timeline.css"),
        margin=_MARGIN_PX,
        inner=_WIDTH_PX - 2 * _MARGIN_PX,
        lanes=lanes,
        legend=_legend(names, height - _MARGIN_PX),
    )


def _legend(names: dict[str, str], y: int) -> Markup:
    entries = (
        Markup(
            '<g class="timeline"><rect class="{kind}" x="{x}" y="{top}" width="12" height="12"/>'
            '<text x="{text_x}" y="{y}">{name}</text></g>'
        ).format(
            kind=kind,
            name=name,
            x=_MARGIN_PX + number * _LEGEND_STEP_PX,
            text_x=_MARGIN_PX + number * _LEGEND_STEP_PX + 18,
            top=y - 10,
            y=y,
        )
        for number, (kind, name) in enumerate(names.items())
    )
    return Markup("\n").join(entries)
