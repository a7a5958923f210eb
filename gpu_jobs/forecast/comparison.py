"""Platforms beside one another, as people ask for it: starts, pace, dollars per million, and what a month costs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gpu_jobs.durations import duration
from gpu_jobs.forecast.simulator import Truth, Work, simulate
from gpu_jobs.jobs.offers import LOCAL, Offer
from gpu_jobs.jobs.orders import Policy

_CHUNKS = 200
_LOOKS = 1000
"""At a long simulated campaign."""
_CLEARLY = 0.05
"""By so much a platform must be better than the next to be called the best."""
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """What a month brings, and in how many campaigns."""

    items: int = 10_000_000
    campaigns: int = 30
    max_workers: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What somebody has published about a platform."""

    platform: str
    cold_start_s: float
    warm_start_s: float
    items_per_s: float
    """Taken as one GPU worker's."""
    usd_per_million: float

    @property
    def usd_per_hour(self) -> float:
        """The price of a GPU worker that its other figures imply."""
        return self.usd_per_million / 1e6 * self.items_per_s * 3600


PUBLISHED = (
    Published(platform="cloud_run", cold_start_s=45, warm_start_s=2, items_per_s=85, usd_per_million=12.50),
    Published(platform="modal", cold_start_s=18, warm_start_s=1, items_per_s=120, usd_per_million=8.75),
    Published(platform="runpod", cold_start_s=120, warm_start_s=5, items_per_s=95, usd_per_million=6.20),
)
"""The public comparison that this project began with. It has no month with cold starts; the simulator adds it.

Of Modal's warm start it says "less than 1 s"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One platform of the comparison; None: not known."""

    platform: str
    machine: str
    cold_start_s: float | None
    """Mean, from the order to the first item."""
    warm_start_s: float | None
    """Mean, likewise, in a container that had served before."""
    keeps_warm: bool
    """Containers wait for the next GPU job, so that there can be warm starts."""
    items_per_s: float
    """Of one GPU worker, mean."""
    all_items_per_s: float
    """Of all GPU workers together, at their best."""
    p95_s: float | None
    """19 of 20 items were in micro-batches that took no longer."""
    ramp_up_s: float
    """From the order until `ramp_up_workers`, the most at once, were at work."""
    ramp_up_workers: int
    regions: tuple[str, ...]
    max_workers: int | None
    """That may be had at once."""
    availability: float | None
    """Of `num_orders` past GPU jobs, the share for which there were GPU workers."""
    num_orders: int
    usd_per_million: float
    """While at work."""
    usd_per_month: float
    """For the volume, work alone."""
    usd_per_month_with_starts: float
    """And all that is billed beside it: cold starts, idle windows, minimum billing."""
    month_hours: float
    """That campaigns of a month take, one after another."""


def from_published(published: Published, volume: Volume, known: Sequence[Offer]) -> Figures:
    """What the published figures come to in a simulated month.

    Args:
        published: of one platform.
        volume: of the month.
        known: the platform's offers, for regions, caps and billing rules.
    """
    offer = replace(
        _offer_like(published.platform, known),
        usd_per_hour=published.usd_per_hour,
        cold_start_p50_s=published.cold_start_s,
        cold_start_p90_s=published.cold_start_s,
    )
    return replace(
        simulated(offer, published.cold_start_s, published.items_per_s, volume, known),
        machine="as published",
        warm_start_s=published.warm_start_s,
    )


def simulated(offer: Offer, start_s: float, items_per_s: float, volume: Volume, known: Sequence[Offer]) -> Figures:
    """What GPU workers that start and work so come to in a simulated month, and what is known of their platform.

    Args:
        offer: with the price and the billing rules.
        start_s: of each GPU worker, from the order to its first item.
        items_per_s: of each GPU worker.
        volume: of the month.
        known: the platform's offers, for regions and caps.
    """
    truth = Truth(offer=offer, start_s=lambda _: start_s, speed=lambda _: items_per_s)
    per_campaign = max(_CHUNKS, volume.items // volume.campaigns)
    work = Work(num_chunks=_CHUNKS, items_per_chunk=per_campaign // _CHUNKS, item_s=1.0)
    policy = Policy(
        platforms=(offer.platform,), max_workers=volume.max_workers, is_canary_first=False, objective="cheapest"
    )
    expected_s = per_campaign / items_per_s / volume.max_workers
    outcome = simulate(work, [truth], policy, 0, tick_s=max(1.0, expected_s / _LOOKS))
    share = volume.items / work.num_items
    per_million = offer.usd_per_hour / 3600 / items_per_s * 1e6
    return Figures(
        platform=offer.platform,
        machine=offer.machine,
        cold_start_s=start_s,
        warm_start_s=None,
        keeps_warm=any(each.idle_s for each in known),
        items_per_s=items_per_s,
        all_items_per_s=items_per_s * volume.max_workers,
        p95_s=None,
        ramp_up_s=start_s,
        ramp_up_workers=volume.max_workers,
        regions=tuple(dict.fromkeys(each.region for each in known)),
        max_workers=max((each.max_alive or each.max_workers for each in known), default=None),
        availability=None,
        num_orders=0,
        usd_per_million=per_million,
        usd_per_month=per_million * volume.items / 1e6,
        usd_per_month_with_starts=outcome.usd * share,
        month_hours=outcome.finish_s * share / 3600,
    )


def _offer_like(platform: str, known: Sequence[Offer]) -> Offer:
    """The platform's rules, by its cheapest offer; this machine's, if none is known."""
    return min(known, key=lambda each: each.usd_per_hour) if known else replace(LOCAL, platform=platform)


def choose_when(figures: Sequence[Figures]) -> list[str]:
    """A sentence for each platform: what it is best at; those that are best at nothing come last."""
    if len(figures) == 1:
        return [f"Only {figures[0].platform} has figures: there is nothing to choose from."]
    return sorted((_choose(each, figures) for each in figures), key=lambda told: not told.startswith("Choose"))


def _choose(one: Figures, all_of_them: Sequence[Figures]) -> str:
    def is_least(of: Callable[[Figures], float]) -> bool:
        best, second = sorted(map(of, all_of_them))[:2]
        return of(one) == best and second > best + _CLEARLY * abs(best)

    reasons: tuple[tuple[Callable[[Figures], float], str], ...] = (
        (lambda each: each.usd_per_month_with_starts, "a month's bill matters most"),
        (_start_s, "campaigns are short or frequent, so that cold starts count"),
        (lambda each: each.warm_start_s or _start_s(each), "one campaign follows another at once"),
        (lambda each: -each.items_per_s, "one GPU worker must do as much as possible"),
        (lambda each: -(each.availability or 0.0), "GPU workers must be had when they are asked for"),
    )
    best = [reason for of, reason in reasons if is_least(of)]
    return f"Choose {one.platform} when {', or '.join(best)}." if best else f"{one.platform} is best at none of these."


def _start_s(each: Figures) -> float:
    return math.inf if each.cold_start_s is None else each.cold_start_s


def table(figures: Sequence[Figures]) -> list[dict[str, str]]:
    """One row for each figure, one column for each platform."""
    rows: dict[str, Callable[[Figures], str]] = {
        "GPU worker": lambda each: each.machine,
        "cold start": lambda each: "none seen" if each.cold_start_s is None else duration(each.cold_start_s),
        "warm start": _warm_start,
        "items/s, one GPU worker": lambda each: f"{each.items_per_s:.4g}",
        "items/s, all at their best": lambda each: f"{each.all_items_per_s:.4g}",
        "p95 latency": lambda each: _UNKNOWN if each.p95_s is None else duration(each.p95_s),
        "ramp-up": lambda each: f"{duration(each.ramp_up_s)} to {_workers(each.ramp_up_workers)}",
        "regions": lambda each: ", ".join(each.regions) or _UNKNOWN,
        "most at once": lambda each: "any number" if each.max_workers is None else _workers(each.max_workers),
        "availability": _availability,
        "$ per million": lambda each: f"{each.usd_per_million:.2f}",
        "$ a month, work alone": lambda each: f"{each.usd_per_month:.2f}",
        "$ a month, all": lambda each: f"{each.usd_per_month_with_starts:.2f}",
        "hours a month": lambda each: f"{each.month_hours:.1f}",
    }
    return [{"figure": name, **{each.platform: of(each) for each in figures}} for name, of in rows.items()]


NOTES = (
    ("start", "from the order to readiness for the first item; a warm one is in a container that had served before"),
    ("p95 latency", "19 of 20 items were in micro-batches that took no longer, loading and model together"),
    ("ramp-up", "from the order until as many GPU workers as were ever at work at once were so"),
    ("availability", "of all GPU jobs under this store root, those that got GPU workers; failures of our own aside"),
    ("work alone", "what items cost while GPU workers work"),
    ("all", "a simulated month with every cold start, idle window and minimum that the platform bills"),
)
"""What the table's rows mean."""


def _warm_start(each: Figures) -> str:
    if each.warm_start_s is not None:
        return duration(each.warm_start_s)
    return "none seen" if each.keeps_warm else "none: each GPU job starts cold"


def _availability(each: Figures) -> str:
    if each.availability is None:
        return _UNKNOWN
    return f"{each.availability:.0%} of {each.num_orders} GPU {'job' if each.num_orders == 1 else 'jobs'}"


def _workers(number: int) -> str:
    return f"{number} GPU {'worker' if number == 1 else 'workers'}"
