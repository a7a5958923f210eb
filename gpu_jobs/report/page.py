"""The page itself, section by section. Pure: facts and a sample in, HTML out."""

import json
from collections.abc import Iterator

import polars as pl

from gpu_jobs.report import formats, tables, timeline, trainings
from gpu_jobs.report.facts import Facts
from gpu_jobs.report.forecast_section import foretold
from gpu_jobs.report.markup import EMPTY, Column, Html, Pictures, cell, fill, join, section, table, terms
from gpu_jobs.report.sample import Moment, Pair, Place, Sample, VideoSample
from gpu_jobs.report.style import CSS

_MAX_PICTURE_BYTES = 3_000_000
_NO_SCRIPTS = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def render(facts: Facts, sample: Sample) -> Html:
    """The whole page."""
    pictures = Pictures(_MAX_PICTURE_BYTES)
    title = formats.short_name(facts.uri)
    body = [
        _header(facts, title),
        _results(sample, pictures),
        *_preview(sample),
        tables.quarantine(facts),
        foretold(facts),
        _timeline(facts),
        tables.workers(facts),
        tables.jobs(facts),
        _origin(facts),
        tables.meanings(facts),
        _footer(facts),
    ]
    return fill(_PAGE, policy=_NO_SCRIPTS, title=f"{title} · Fanfold report", css=Html(CSS), body=join(body))


def _header(facts: Facts, title: str) -> Html:
    return fill(
        '<header>\n<p class="eyebrow">Fanfold campaign report</p>\n<h1>{title}</h1>\n'
        '<p class="where">Workload {workload} over {dataset}</p>\n{verdict}\n{bar}\n{figures}\n</header>',
        title=title,
        workload=facts.plan.workload,
        dataset=facts.plan.dataset,
        verdict=_verdict(facts),
        bar=_bar(facts),
        figures=_figures(facts),
    )


def _verdict(facts: Facts) -> Html:
    manifest = facts.manifest
    closed = facts.journal.closed
    if manifest.is_complete:
        set_aside = formats.count(manifest.num_quarantined, "item")
        rest = f"; {set_aside} could not be used and {'is' if manifest.num_quarantined == 1 else 'are'} listed below"
        words = f"Every item is settled{rest if manifest.num_quarantined else ''}."
    else:
        words = f"{manifest.num_open:,} of {formats.count(manifest.num_items, 'item')} are still open. "
        why = f"The campaign is closed: {closed.reason}. Run it again to go on from here." if closed else ""
        words += why or "The campaign was still going on."
    return fill(
        '<p class="verdict"><span class="badge {kind}">{word}</span>{words}</p>',
        kind="good" if manifest.is_complete else "",
        word="Complete" if manifest.is_complete else "Partial",
        words=words,
    )


def _bar(facts: Facts) -> Html:
    manifest = facts.manifest
    parts = (("committed", manifest.num_committed), ("quarantined", manifest.num_quarantined))
    inside = join(
        (
            fill(
                '<i class="{kind}" style="width:{width}%"></i>', kind=kind, width=f"{100 * n / manifest.num_items:.2f}"
            )
            for kind, n in parts
        ),
        "",
    )
    return fill('<div class="bar">{inside}</div>', inside=inside)


def _figures(facts: Facts) -> Html:
    manifest = facts.manifest
    figures = [
        ("items", f"{manifest.num_items:,}"),
        ("committed", f"{manifest.num_committed:,}"),
        ("quarantined", f"{manifest.num_quarantined:,}"),
        ("open", f"{manifest.num_open:,}"),
        ("wall time", formats.duration(facts.wall_s)),
        ("items a second", formats.rate(facts.items_per_s)),
        ("spent", formats.usd(facts.spent_usd)),
        *([("set aside", formats.usd(facts.reserved_usd))] if facts.reserved_usd else []),
        ("GPU workers", f"{len(facts.workers):,}"),
    ]
    inside = join(fill("<div><dt>{name}</dt><dd>{value}</dd></div>", name=name, value=value) for name, value in figures)
    return fill('<dl class="figures">{inside}</dl>', inside=inside)


def _results(sample: Sample, pictures: Pictures) -> Html:
    if sample.trainings is not None:
        return trainings.trainings(sample.trainings)
    if sample.table is not None:
        note = f"The first {formats.count(sample.table.height, 'row')}. {sample.note}"
        return section("Results", _rows(sample.table), note=note)
    pieces = [_video(video, pictures) for video in sample.videos]
    if sample.pairs:
        pieces.append(_pairs(sample, pictures))
    return section("Results", *pieces, note=" ".join(_video_notes(sample)))


def _rows(frame: pl.DataFrame) -> Html:
    rows = [[cell(value) for value in row] for row in frame.iter_rows()]
    columns = [
        Column(title=series.name, style="num" if series.dtype.is_numeric() else tables.width(values))
        for series, values in zip(frame, zip(*rows, strict=True), strict=True)
    ]
    return table(columns, rows)


def _preview(sample: Sample) -> Iterator[Html]:
    if sample.preview is not None and sample.preview.height:
        note = "What the draft model said of the first items while the model was loading. None of it is in the outputs."
        yield section("Preview", _rows(sample.preview), note=note)


def _video_notes(sample: Sample) -> Iterator[str]:
    if sample.num_videos > len(sample.videos):
        yield f"The first {len(sample.videos)} of {sample.num_videos:,} videos."
    if any(video.kind == "shot" for video in sample.videos):
        yield (
            "Each picture is the first frame of a shot. Under it: when the shot begins and ends, and what the image "
            "model takes its frames to show, with the model's own probability."
        )
    if sample.note:
        yield sample.note


def _video(video: VideoSample, pictures: Pictures) -> Html:
    shown = len(video.moments)
    number = formats.count(video.num_moments, video.kind)
    return fill(
        '<h3>{name}<small>{number}</small></h3>\n<ol class="shots">\n{moments}\n</ol>',
        name=formats.short_name(video.video),
        number=number if shown == video.num_moments else f"the first {shown} of {number}",
        moments=join(_moment(moment, video.kind, pictures) for moment in video.moments),
    )


def _moment(moment: Moment, kind: str, pictures: Pictures) -> Html:
    end = "" if moment.end_s is None else f" \N{EN DASH} {formats.position(moment.end_s)}"
    return fill(
        '<li>{picture}<div class="time">{time}</div>{labels}</li>',
        picture=pictures.img(moment.thumbnail) if kind == "shot" else EMPTY,
        time=formats.position(moment.start_s) + end,
        labels=join(map(_label, moment.labels)) or Html('<div class="label">no label</div>'),
    )


def _label(label: tuple[str, float]) -> Html:
    name, score = label
    return fill('<div class="label"><span>{name}</span><b>{share}</b></div>', name=name, share=formats.share(score))


def _pairs(sample: Sample, pictures: Pictures) -> Html:
    note = (
        "Shots with frames that the image model can hardly tell apart: a repeated scene, a second upload. Pictures "
        "show how each shot begins; the times are those of the frames."
    )
    shown = len(sample.pairs)
    number = formats.count(sample.num_pairs, "pair")
    return fill(
        '<h3>Look alike<small>{number}</small></h3>\n<p class="note">{note}</p>\n<ul class="pairs">\n{pairs}\n</ul>',
        number=number if shown == sample.num_pairs else f"the {shown} most similar of {number}",
        note=note,
        pairs=join(_pair(pair, pictures) for pair in sample.pairs),
    )


def _pair(pair: Pair, pictures: Pictures) -> Html:
    return fill(
        '<li><div class="pair">{other}{one}</div><div class="label">similarity {similarity}</div></li>',
        other=_place(pair.other, pictures),
        one=_place(pair.one, pictures),
        similarity=f"{pair.similarity:.3f}, {formats.count(pair.num_frames, 'frame')}",
    )


def _place(place: Place, pictures: Pictures) -> Html:
    return fill(
        '<div>{picture}<div class="time">{time}</div><div class="label">{video}</div></div>',
        picture=pictures.img(place.thumbnail),
        time=formats.position(place.at_s),
        video=formats.short_name(place.video),
    )


def _timeline(facts: Facts) -> Html:
    if not facts.workers:
        return EMPTY
    note = "One lane per GPU worker; time since the first one began."
    if facts.attempts is None:
        note += " There are too many chunks to draw one by one: the lengths are sums, their order says nothing."
    if len(facts.workers) > timeline.MAX_LANES:
        note += f" The first {timeline.MAX_LANES} of {len(facts.workers):,} GPU workers."
    drawing = timeline.draw(facts.workers, facts.attempts)
    return section("Timeline", drawing, timeline.legend(facts.workers, facts.attempts), note=note)


def _origin(facts: Facts) -> Html:
    plan, manifest = facts.plan, facts.manifest
    num_rows = sum(file.num_rows for file in manifest.outputs)
    num_bytes = sum(file.num_bytes for file in manifest.outputs)
    first = manifest.outputs[0].key.rpartition("/")[0]
    files = (
        f"{formats.count(len(manifest.outputs), 'file')}, {formats.count(num_rows, 'row')}, {formats.size(num_bytes)}"
    )
    pairs: list[tuple[str, object]] = [
        ("Campaign", fill("<code>{uri}</code>", uri=facts.uri)),
        ("Workload", fill("<code>{name}</code>", name=plan.workload)),
        ("Parameters", fill("<code>{params}</code>", params=json.dumps(plan.params) if plan.params else "none")),
        ("Dataset", plan.dataset),
        ("Dataset digest", fill("<code>{digest}</code>", digest=plan.dataset_digest)),
        ("Planned", f"{formats.moment(plan.created_at)}: {formats.count(plan.num_items, 'item')}"),
        ("First cut", plan.cut_reason),
        ("Versions", ", ".join(f"{name} {version}" for name, version in sorted(plan.versions.items()))),
        *((name.capitalize(), formats.several(values)) for name, values in manifest.facts.items()),
        ("Outputs", fill("{files} in <code>{folder}/</code>", files=files, folder=first)),
        ("Manifest", fill("<code>manifests/{digest}.json</code>", digest=manifest.digest)),
        ("Published", formats.moment(manifest.created_at)),
    ]
    return section("Where it comes from", terms(pairs))


def _footer(facts: Facts) -> Html:
    return fill(
        "<footer>A view of manifest {digest}. The facts are the objects under {uri}; making the report again "
        "replaces it.</footer>",
        digest=facts.manifest.digest[:12],
        uri=facts.uri,
    )
