"""The forecast that was made before the campaign, and how well it predicted the outcome. Pure."""

from typing import NamedTuple

from gpu_jobs.durations import duration
from gpu_jobs.forecast.forecast import score, table
from gpu_jobs.report import formats
from gpu_jobs.report.facts import Facts
from gpu_jobs.report.markup import Column, Table

_NOTE = (
    "Made before any money was spent, from simulated campaigns. Half of them stayed below the figures at 50 %, nine of "
    "ten below the figures at 90 %."
)


class ForecastSection(NamedTuple):
    note: str
    score: str
    """How well the forecast predicted the outcome; "" while items are open."""
    table: Table


def forecast_section(facts: Facts) -> ForecastSection | None:
    """The dollars and the time of each way as forecast, the actual ones, and the score of the forecast."""
    if facts.outlook is None:
        return None
    header, *rows = table(facts.outlook.forecast)
    columns = [
        Column(title="Option", style="whole"),
        *(Column(title=title.capitalize(), style="num") for title in header[1:-1]),
        Column(title="", style="whole"),
    ]
    scored, happened = "", []
    if facts.outcome is not None:
        usd, took_s = facts.outcome
        scored = f"{score(facts.outlook.forecast, usd, took_s).capitalize()}."
        happened = [("actual", formats.usd(usd), "", duration(took_s), "", "", "")]
    note = f"{_NOTE} {formats.moment(facts.outlook.at)}."
    return ForecastSection(note, scored, Table(columns=columns, rows=[*happened, *rows]))
