"""Dollars, by an offer's hourly price. Pure."""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from gpu_jobs.jobs import Order
from gpu_jobs.offers import Offer


def worst_case_usd(offer: Offer, num_workers: int, hours: float) -> float:
    """What a GPU job can cost at most: all its GPU workers, for all the time that it may last."""
    return num_workers * offer.usd_per_hour * hours


def spent_usd(order: Order, since: datetime, until: datetime) -> float:
    """What a GPU job has cost from its order on; an estimate, since a platform bills by rules of its own."""
    hours = max(0.0, (until - since).total_seconds() / 3600)
    return worst_case_usd(order.offer, order.num_workers, hours)


def by_class(cost: pl.DataFrame, classes: Sequence[str]) -> pl.DataFrame:
    """What GPU worker seconds went into, over all GPU jobs: `class`, `seconds`, `share`, `usd`.

    Each GPU job's dollars are shared out by its seconds. What no GPU worker has accounted for is the class "unseen":
    before its first sign of life, after its last, or under a platform's hand.

    Args:
        cost: one row per GPU job, with `billed_s`, `usd` and `<class>_s` for each of `classes`.
        classes: what GPU workers sort their seconds into.
    """
    seen = pl.sum_horizontal(f"{name}_s" for name in classes)
    split = cost.with_columns(unseen_s=(pl.col("billed_s") - seen).clip(lower_bound=0.0))
    named = [*classes, "unseen"]
    split = split.with_columns(usd_per_s=pl.col("usd") / pl.sum_horizontal(f"{name}_s" for name in named))
    rows = [
        {
            "class": name,
            "seconds": split[f"{name}_s"].sum(),
            "usd": (split[f"{name}_s"] * split["usd_per_s"]).fill_nan(0.0).sum(),
        }
        for name in named
    ]
    frame = pl.DataFrame(rows, schema={"class": pl.String, "seconds": pl.Float64, "usd": pl.Float64})
    share = (pl.col("seconds") / pl.col("seconds").sum()).fill_nan(0.0)
    return frame.select("class", "seconds", share.alias("share"), "usd")
