"""Dollars: what may be spent, what was spent, and on what. Pure.

Dollars are estimates from an offer's price and billing rules, never a platform's bill. The waste ledger assigns every
billed second of a GPU worker, and so every dollar, to exactly one class.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl

from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Order

CLASSES = ("useful", "starting", "model_load", "idle", "retry", "preempted", "hedged", "quarantined")
"""What billed seconds were used for. All classes but the first are waste."""
LOST = ("retry", "preempted", "hedged", "quarantined")
"""The classes of work whose results were lost."""
REAPER_S = 600.0
"""How long a GPU worker may outlive the expiry of its order, if it does not end itself: one period of the reaper."""


def worst_case_usd(offer: Offer, num_workers: int, hours: float) -> float:
    """Return what a GPU job can cost at most: all its GPU workers live from its order until the reaper ends them."""
    return num_workers * usd_for(offer, billed_s(offer, 3600 * hours + REAPER_S))


def billed_s(offer: Offer, lived_s: float) -> float:
    """Return the seconds that the offer's rules bill for one GPU worker that lived for `lived_s`."""
    if lived_s <= 0:
        return 0.0
    steps = math.ceil(round(lived_s / offer.granularity_s, 6))
    return max(steps * offer.granularity_s, offer.min_billed_s) + offer.idle_s


def usd_for(offer: Offer, seconds: float) -> float:
    return offer.usd_per_hour * seconds / 3600


def spent_usd(order: Order, since: datetime, until: datetime) -> float:
    """Return what a GPU job has cost since its order, if all its GPU workers are alive."""
    return order.num_workers * usd_for(order.offer, billed_s(order.offer, (until - since).total_seconds()))


def classes_of(billed: float, seconds: Mapping[str, float], before_s: float, *, is_over: bool) -> dict[str, float]:
    """Sort one GPU worker's billed seconds into `CLASSES`; they add up to `billed`.

    Args:
        billed: Seconds that are billed for it.
        seconds: The seconds that its heartbeat reports: starting, model_load, working and idle. The classes in `LOST`
            and "unsettled" are parts of working; unsettled work is lost if the GPU worker dies. Empty if there never
            was a heartbeat.
        before_s: Seconds from the order to its first heartbeat.
        is_over: Whether it ended normally or is still alive.
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
    """Return the billed seconds and dollars of all GPU jobs by class: `class`, `seconds`, `share`, `usd`.

    Args:
        cost: One row per GPU job, with `usd` and `<class>_s` for each of `CLASSES`. A GPU job's dollars are divided
            among the classes in proportion to its seconds.
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
    """Return whole cents that add up to the rounded sum: the amounts with the largest remainders are rounded up."""
    exact = [100 * usd for usd in dollars]
    cents = [math.floor(each) for each in exact]
    missing = round(sum(exact)) - sum(cents)
    by_remainder = sorted(range(len(exact)), key=lambda at: cents[at] - exact[at])
    for at in by_remainder[:missing]:
        cents[at] += 1
    return cents
