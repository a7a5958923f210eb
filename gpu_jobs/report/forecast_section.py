"""The forecast that was told before, and what came of it. Pure."""

from gpu_jobs.forecast.forecast import score, table
from gpu_jobs.report import formats
from gpu_jobs.report.facts import Facts
from gpu_jobs.report.markup import EMPTY, Column, Html, fill, section
from gpu_jobs.report.markup import table as html_table

_NOTE = (
    "Told before the money was spent, from simulated campaigns: half of them stayed below the figure at 50 %, nine of "
    "ten below that at 90 %."
)


def foretold(facts: Facts) -> Html:
    """Each way's dollars and time as they were told, what really happened, and how well that was foreseen."""
    if facts.outlook is None:
        return EMPTY
    header, *rows = table(facts.outlook.forecast)
    columns = [
        Column(title="Option", style="whole"),
        *(Column(title=title.capitalize(), style="num") for title in header[1:-1]),
        Column(title="", style="whole"),
    ]
    lead, happened = EMPTY, []
    if facts.outcome is not None:
        usd, took_s = facts.outcome
        lead = fill('<p class="note">{score}.</p>', score=score(facts.outlook.forecast, usd, took_s).capitalize())
        happened = [("what happened", formats.usd(usd), "", formats.duration(took_s), "", "", "")]
    note = f"{_NOTE} {formats.moment(facts.outlook.at)}."
    return section("Forecast and outcome", lead, html_table(columns, [*happened, *rows]), note=note)
