"""The report's section on a sweep of fine-tunings: their ranking, their losses, and a sample before and after."""

from collections.abc import Sequence
from typing import Any

import polars as pl
from markupsafe import Markup

from gpu_jobs.durations import duration
from gpu_jobs.report import formats
from gpu_jobs.report.markup import Column, Table, fill

COLUMNS = frozenset({"rank", "eval_loss", "eval_loss_before", "curve"})
"""Output rows with these columns are those of a sweep."""
_MAX_DRAWN = 8
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _RIGHT = 860, 300, 46, 22, 10
_NUM_TICKS = 4

_Points = list[tuple[int, float]]


def trainings(rows: pl.DataFrame) -> Markup:
    """The section as HTML. `rows` are those that the workload `fine_tune` publishes, the best one first."""
    found = rows.to_dicts()
    note = "Sorted by validation loss, lowest first. Lines show the training loss by step, dots the validation loss."
    if len(found) > _MAX_DRAWN:
        note += f" The best {_MAX_DRAWN} of {len(found):,} are drawn."
    return fill(
        "trainings.html.j2", note=note, ranking=_ranking(found), drawing=_drawing(found[:_MAX_DRAWN]), best=found[0]
    )


def _ranking(found: Sequence[dict[str, Any]]) -> Table:
    columns = [
        Column(title="", style="num"),
        Column(title="training"),
        Column(title="validation loss", style="num"),
        Column(title="before", style="num"),
        Column(title="change", style="num"),
        Column(title="steps", style="num"),
        Column(title="tokens", style="num"),
        Column(title="time", style="num"),
        Column(title="model", style="mono"),
    ]
    return Table(columns=columns, rows=[_ranked(row, place) for place, row in enumerate(found)])


def _ranked(row: dict[str, Any], place: int) -> list[object]:
    after, before = row["eval_loss"], row["eval_loss_before"]
    early = ", stopped early" if row["stopped_early"] else ""
    mark = Markup('<i class="key c{place}"></i>').format(place=place) if place < _MAX_DRAWN else Markup()
    return [
        row["rank"],
        Markup("{mark}{name}").format(mark=mark, name=row["item"]),
        f"{after:.4f}",
        f"{before:.4f}",
        f"{after / before - 1:+.1%}",
        f"{row['steps']:,}{early}",
        f"{row['tokens']:,}",
        duration(row["seconds"]),
        row["model"],
    ]


def _drawing(found: Sequence[dict[str, Any]]) -> Markup:
    curves = [(_points(row, "loss"), _points(row, "eval_loss")) for row in found]
    every = [point for pair in curves for points in pair for point in points]
    if not every:
        return Markup()
    frame = _Frame(every)
    lines = [
        Markup('<polyline class="c{place}" points="{line}"/>{dots}').format(
            place=place,
            line=" ".join(f"{x:.1f},{y:.1f}" for x, y in map(frame.place, losses)),
            dots=Markup().join(frame.dot(point, place) for point in measured),
        )
        for place, (losses, measured) in enumerate(curves)
    ]
    return Markup(
        '<div class="scroll"><svg class="curves" role="img" aria-label="losses by step" width="{width}" '
        'height="{height}">{ticks}\n{lines}</svg></div>'
    ).format(
        width=_WIDTH,
        height=_HEIGHT,
        ticks=frame.ticks(),
        lines=Markup("\n").join(lines),
    )


def _points(row: dict[str, Any], name: str) -> _Points:
    return [(each["step"], each[name]) for each in row["curve"] if each[name] is not None]


class _Frame:
    """Maps steps and losses to positions in the drawing."""

    def __init__(self, points: _Points) -> None:
        self._steps = max(1, *(step for step, _ in points))
        self._low = min(loss for _, loss in points)
        self._high = max(self._low + 1e-9, *(loss for _, loss in points))

    def place(self, point: tuple[int, float]) -> tuple[float, float]:
        step, loss = point
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / self._steps
        y = 10 + (_HEIGHT - 10 - _BOTTOM) * (self._high - loss) / (self._high - self._low)
        return x, y

    def dot(self, point: tuple[int, float], place: int) -> Markup:
        x, y = self.place(point)
        return Markup('<circle class="c{place}" cx="{x}" cy="{y}" r="3.5"/>').format(
            place=place, x=f"{x:.1f}", y=f"{y:.1f}"
        )

    def ticks(self) -> Markup:
        """Horizontal lines at some losses, and the number of steps at the end of the axis."""
        shares = [number / _NUM_TICKS for number in range(_NUM_TICKS + 1)]
        losses = [self._low + share * (self._high - self._low) for share in shares]
        lines = [
            Markup(
                '<line class="tick" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/><text class="tick" x="0" y="{y}" '
                'dy="4">{loss}</text>'
            ).format(
                left=_LEFT,
                right=_WIDTH - _RIGHT,
                y=f"{self.place((0, loss))[1]:.1f}",
                loss=f"{loss:.3f}",
            )
            for loss in losses
        ]
        end = Markup('<text class="tick" x="{x}" y="{y}" text-anchor="end">{steps}</text>').format(
            x=_WIDTH - _RIGHT,
            y=_HEIGHT - 4,
            steps=formats.count(self._steps, "step"),
        )
        return Markup("\n").join([*lines, end])
