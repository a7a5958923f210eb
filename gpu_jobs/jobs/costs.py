"""Dollars: what may be spent, what was, and on what. Pure.

Dollars are estimates by an offer's price and billing rules, never a platform's bill. The waste ledger puts every billed
second of a GPU worker into exactly one class, and so every dollar.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl

from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Order

CLASSES = ("useful", "starting", "model_load", "idle", "retry", "preempted", "hedged", "quarantined")
"""What a billed second went into. All but the first is waste."""
LOST = ("retry", "preempted", "hedged", "quarantined")
"""Classes of work that came to nothing."""
REAPER_S = 600.0
"""How long a GPU worker that does not end itself at its order's expiry may live on: one period of the reaper."""


def worst_case_usd(offer: Offer, num_workers: int, hours: float) -> float:
    """What a GPU job can cost at most: all its GPU workers, from order to expiry and until the reaper has come."""
    return num_workers * usd_for(offer, billed_s(offer, 3600 * hours + REAPER_S))


def billed_s(offer: Offer, lived_s: float) -> float:
    """Seconds that are billed for one GPU worker that lived so long, by the offer's rules."""
    if lived_s <= 0:
        return 0.0
    steps = math.ceil(round(lived_s / offer.granularity_s, 6))
    return max(steps * offer.granularity_s, offer.min_billed_s) + offer.idle_s


def usd_for(offer: Offer, seconds: float) -> float:
    return offer.usd_per_hour * seconds / 3600


def spent_usd(order: Order, since: datetime, until: datetime) -> float:
    """What a GPU job has cost from its order on if all its GPU workers live."""
    return order.num_workers * usd_for(order.offer, billed_s(order.offer, (until - since).total_seconds()))


def classes_of(billed: float, seconds: Mapping[str, float], before_s: float, *, is_over: bool) -> dict[str, float]:
    """Sort one GPU worker's billed seconds into `CLASSES`; they add up to `billed`.

    Args:
        billed: what is billed for it.
        seconds: its own account: starting, model_load, working, idle; of working the parts in `LOST`, and "unsettled",
            which nobody keeps if it dies. Empty if it never gave a sign of life.
        before_s: from the order to its first sign of life.
        is_over: it ended in order, or lives.
    """
    lost = {name: seconds.get(name, 0.0) for name in LOST}
    if not is_over:
        lost["preempted"] += seconds.get("unsettled", 0.0)
    named = {
        "useful": max(0.0, seconds.get("working", 0.0) - sum(lost.values())),
        "starting": max(0.0, before_s) + seconds.get("starting", 0.0) if seconds else billed,
        "model_load": seconds.get("model_load", 0.0),
        "idle": seconds.get("idle", 0.0),
        **lost,
    }
    total = sum(named.values())
    if total > billed:
        return {name: value * billed / total for name, value in named.items()}
    return {**named, "idle": named["idle"] + billed - total}


def by_class(cost: pl.DataFrame) -> pl.DataFrame:
    """What billed seconds and dollars of all GPU jobs went into: `class`, `seconds`, `share`, `usd`.

    Args:
        cost: one row per GPU job, with `usd` and `<class>_s` for each of `CLASSES`; a GPU job's dollars are shared out
            by its seconds.
    """
    split = cost.with_columns(usd_per_s=pl.col("usd") / pl.sum_horizontal(f"{name}_s" for name in CLASSES))
    rows = [
        {
            "class": name,
            "seconds": split[f"{name}_s"].sum(),
            "usd": (split[f"{name}_s"] * split["usd_per_s"]).fill_nan(0.0).sum(),
        }
        for name in CLASSES
    ]
    frame = pl.DataFrame(rows, schema={"class": pl.String, "seconds": pl.Float64, "usd": pl.Float64})
    share = (pl.col("seconds") / pl.col("seconds").sum()).fill_nan(0.0)
    return frame.select("class", "seconds", share.alias("share"), "usd")


def to_cents(dollars: Sequence[float]) -> list[int]:
    """Whole cents that add up to the rounded sum: the largest remainders are rounded up."""
    exact = [100 * usd for usd in dollars]
    cents = [math.floor(each) for each in exact]
    missing = round(sum(exact)) - sum(cents)
    by_remainder = sorted(range(len(exact)), key=lambda at: cents[at] - exact[at])
    for at in by_remainder[:missing]:
        cents[at] += 1
    return cents
