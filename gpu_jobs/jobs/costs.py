"""Dollars: what may be spent, what was spent, and on what. Pure.

Dollars are estimates from an offer's price and billing rules, never a platform's bill. The waste ledger assigns every
billed second of a GPU worker, and so every dollar, to exactly one class.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Self

import polars as pl

from gpu_jobs.jobs.failures import Cause
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Order


@dataclass(frozen=True, slots=True, kw_only=True)
class LostSeconds:
    """Working seconds that came to nothing, by class. Records of one type can be added."""

    retry: float = 0.0
    """The work failed and is done again."""
    preempted: float = 0.0
    """The GPU worker was stopped or died before it had saved the work."""
    hedged: float = 0.0
    """Another GPU worker had settled the chunk first."""
    quarantined: float = 0.0
    """The items gave no rows."""

    def __add__(self, other: Self) -> Self:
        added = {each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)}
        return type(self)(**added)

    @property
    def lost_s(self) -> float:
        return self.retry + self.preempted + self.hedged + self.quarantined


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeconds(LostSeconds):
    """What a GPU worker says of its own life: four phases that follow one another, and parts of `working`."""

    starting: float = 0.0
    model_load: float = 0.0
    working: float = 0.0
    idle: float = 0.0
    infer: float = 0.0
    """The part of `working` that was spent inside the model."""
    unsettled: float = 0.0
    """The part of `working` that is lost if the GPU worker dies now."""

    @property
    def lived_s(self) -> float:
        return self.starting + self.model_load + self.working + self.idle


@dataclass(frozen=True, slots=True, kw_only=True)
class BilledSeconds(LostSeconds):
    """Every second that is billed, in exactly one class. All but `useful` is waste."""

    useful: float = 0.0
    starting: float = 0.0
    model_load: float = 0.0
    idle: float = 0.0

    @property
    def total_s(self) -> float:
        return self.useful + self.starting + self.model_load + self.idle + self.lost_s

    def by_class(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in CLASSES}


LIFE_PHASES = ("starting", "model_load", "working", "idle")
"""Fields of `WorkerSeconds` that add up to a life, in the order of a life."""
LOST = tuple(each.name for each in fields(LostSeconds))
CLASSES = (*(each.name for each in fields(BilledSeconds) if each.name not in LOST), *LOST)
"""Fields of `BilledSeconds`, as tables list them."""
REAPER_S = 600.0
"""How long a GPU worker may outlive the expiry of its order, if it does not end itself: one period of the reaper."""


def worst_case_usd(offer: Offer, num_workers: int, hours: float) -> float:
    """Return what a GPU job can cost at most: all its GPU workers live from its order until the reaper ends them."""
    return num_workers * usd_for(offer, billed_s(offer, 3600 * hours + REAPER_S))


def left_usd(budget_usd: float | None, *, spent_usd: float, reserved_usd: float) -> float | None:
    """What is left of a budget, never below 0; None if there is no budget.

    Args:
        budget_usd: of the campaign.
        spent_usd: what its GPU jobs have cost so far.
        reserved_usd: what those that live may cost beyond that; 0 only where that money may be planned with.
    """
    return None if budget_usd is None else max(0.0, budget_usd - spent_usd - reserved_usd)


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


def lost_by(cause: Cause, seconds: float, *, blames_items: bool) -> LostSeconds:
    """The class of the working seconds that an attempt's end threw away."""
    if blames_items:
        return LostSeconds(quarantined=seconds)
    if cause.is_suspicious or cause is Cause.TRANSIENT:
        return LostSeconds(retry=seconds)
    return LostSeconds(preempted=seconds)


def classes_of(billed: float, account: WorkerSeconds | None, before_s: float, *, is_over: bool) -> BilledSeconds:
    """Sort one GPU worker's billed seconds into classes; they add up to `billed`.

    Args:
        billed: Seconds that are billed for it.
        account: The seconds that its heartbeat reports; None if there never was a heartbeat.
        before_s: Seconds from the order to its first heartbeat.
        is_over: Whether it ended normally or is still alive.
    """
    if account is None:
        return BilledSeconds(starting=billed)
    named = {
        **{name: getattr(account, name) for name in LOST},
        "starting": max(0.0, before_s) + account.starting,
        "model_load": account.model_load,
        "idle": account.idle,
    }
    if not is_over:
        named["preempted"] += account.unsettled
    named["useful"] = max(0.0, account.working - sum(named[name] for name in LOST))
    total = sum(named.values())
    if total > billed:
        return BilledSeconds(**{name: value * billed / total for name, value in named.items()})
    return BilledSeconds(**{**named, "idle": named["idle"] + billed - total})


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
