"""The values that the report's template shows. Pure: it takes facts and a sample, and returns HTML."""

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import polars as pl
from markupsafe import Markup

from gpu_jobs.report import formats, tables, timeline, trainings
from gpu_jobs.report.facts import Facts
from gpu_jobs.report.forecast_section import forecast_section
from gpu_jobs.report.markup import Column, Pictures, Table, cell, fill
from gpu_jobs.report.sample import Sample

_MAX_PICTURE_BYTES = 3_000_000


def render(facts: Facts, sample: Sample) -> Markup:
    """The whole page."""
    return fill(
        "report.html.j2",
        facts=facts,
        verdict=_verdict(facts),
        sample=sample,
        pictures=Pictures(_MAX_PICTURE_BYTES),
        trainings=None if sample.trainings is None else trainings.trainings(sample.trainings),
        rows=None if sample.table is None else _rows(sample.table),
        video_note=" ".join(_video_notes(sample)),
        preview=None if sample.preview is None or sample.preview.is_empty() else _rows(sample.preview),
        quarantine=tables.quarantine(facts),
        outlook=forecast_section(facts),
        timeline=_timeline(facts),
        workers=tables.workers(facts),
        jobs=tables.jobs(facts),
        params=json.dumps(facts.plan.params) if facts.plan.params else "none",
        meanings=tables.meanings(facts),
    )


def _verdict(facts: Facts) -> str:
    manifest = facts.manifest
    closed = facts.journal.closed
    if manifest.is_complete:
        set_aside = formats.count(manifest.num_quarantined, "item")
        rest = f"; {set_aside} could not be used and {'is' if manifest.num_quarantined == 1 else 'are'} listed below"
        return f"Every item is settled{rest if manifest.num_quarantined else ''}."
    why = f"The campaign is closed: {closed.reason}. Run it again to continue from here." if closed else ""
    is_open = f"{manifest.num_open:,} of {formats.count(manifest.num_items, 'item')} are still open."
    return f"{is_open} {why or 'The campaign was still running when this report was made.'}"


def _rows(frame: pl.DataFrame) -> Table:
    rows = [[cell(value) for value in row] for row in frame.iter_rows()]
    columns = [
        Column(title=series.name, style="num" if series.dtype.is_numeric() else tables.width(values))
        for series, values in zip(frame, zip(*rows, strict=True), strict=True)
    ]
    return Table(columns=columns, rows=rows)


def _video_notes(sample: Sample) -> Iterator[str]:
    if sample.num_videos > len(sample.videos):
        yield f"The first {len(sample.videos)} of {sample.num_videos:,} videos."
    if any(video.kind == "shot" for video in sample.videos):
        yield (
            "Each picture is the first frame of a shot. Below it are the start and the end of the shot, and the labels "
            "that the image model gives its frames, with the model's probability."
        )
    if sample.note:
        yield sample.note


class _Timeline(NamedTuple):
    note: str
    drawing: Markup
    legend: Mapping[str, str]


def _timeline(facts: Facts) -> _Timeline | None:
    if not facts.workers:
        return None
    note = "One lane per GPU worker. The axis is the time since the first GPU worker started."
    if facts.attempts is None:
        note += (
            " There are too many chunks to draw each one: lengths are sums of seconds, and their order has no meaning."
        )
    if len(facts.workers) > timeline.MAX_LANES:
        note += f" The first {timeline.MAX_LANES} of {len(facts.workers):,} GPU workers."
    drawing = timeline.draw(facts.workers, facts.attempts)
    return _Timeline(note, drawing, timeline.names(facts.workers, facts.attempts))
