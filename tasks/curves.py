"""Training curves of long items, as an artifact that is updated while they are worked on."""

import time
from collections.abc import Callable, Sequence

import polars as pl

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.ledger.items import ItemsReader
from gpu_jobs.telemetry.training_curves import Curves
from gpu_jobs.workloads import load_workload
from gpu_jobs.workloads.base import LongWorkload
from tasks.artifacts import MarkdownArtifact
from tasks.summary import table

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40
"""The width of a curve, in characters."""
_MAX_ROWS = 50
_COLUMNS = ("training", "step", "loss", "curve of the loss", "validation", "tokens/s")


class CurvesArtifact:
    """A table with one row per training, updated at most every five seconds."""

    def __init__(self, campaign: Campaign, *, clock: Callable[[], float] = time.monotonic) -> None:
        name = campaign.store.uri.rpartition("/")[2]
        self._campaign = campaign
        self._curves = Curves(campaign.store)
        self._items = ItemsReader(campaign.store, campaign.plan)
        self._artifact = MarkdownArtifact(f"{name}-curves", f"Losses of {name}, while it trains", clock=clock)

    def show(self, *, is_last: bool = False) -> None:
        self._artifact.show(self._text, is_last=is_last)

    def _text(self) -> str:
        found = self._curves.look()
        if not found:
            return ""
        names = dict(enumerate(name for frame in self._items.frames() for name in frame["item"]))
        ranked = sorted(found.items(), key=lambda each: _best(each[1]))[:_MAX_ROWS]
        return "\n".join(table(_COLUMNS, [_row(names[index], rows) for index, rows in ranked]))


def measures(campaign: Campaign) -> bool:
    """Return whether the campaign's items are long ones, for which there are curves."""
    return isinstance(load_workload(campaign.plan.workload, campaign.plan.params), LongWorkload)


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """Draw values as a line of at most `width` bars; each bar is the mean of consecutive values."""
    if not values:
        return ""
    size = max(1, -(-len(values) // width))
    means = [sum(stretch) / len(stretch) for at in range(0, len(values), size) if (stretch := values[at : at + size])]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0
    return "".join(_BARS[round((value - low) * scale)] for value in means)


def _best(rows: pl.DataFrame) -> float:
    losses = rows["eval_loss"].drop_nulls()
    return losses[-1] if len(losses) else float("inf")


def _row(name: str, rows: pl.DataFrame) -> tuple[str, ...]:
    losses = rows["loss"].drop_nulls().to_list()
    return (
        name,
        str(rows["step"][-1]),
        f"{losses[-1]:.3f}" if losses else "",
        sparkline(losses),
        _newest(rows, "eval_loss", "{:.3f}"),
        _newest(rows, "tokens_per_s", "{:,.0f}"),
    )


def _newest(rows: pl.DataFrame, name: str, form: str) -> str:
    values = rows[name].drop_nulls()
    return form.format(values[-1]) if len(values) else ""
