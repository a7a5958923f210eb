"""Compare platforms: starts, throughput, dollars per million items, and the cost of a month."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gpu_jobs.durations import duration
from gpu_jobs.forecast.simulator import OfferBehaviour, SimulatedWork, simulate
from gpu_jobs.jobs.offers import LOCAL, Offer
from gpu_jobs.jobs.orders import Policy

_CHUNKS = 200
_LOOKS = 1000
"""Number of decisions in a long simulated campaign."""
_CLEARLY = 0.05
"""A platform is called the best only if it is better than the next by this share."""
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """The work of a month, and the number of campaigns it is divided into."""

    items: int = 10_000_000
    campaigns: int = 30
    max_workers: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Figures that somebody has published about a platform."""

    platform: str
    cold_start_s: float
    warm_start_s: float
    items_per_s: float
    """Throughput; assumed to be of one GPU worker."""
    usd_per_million: float

    @property
    def usd_per_hour(self) -> float:
        """The price of a GPU worker that follows from the other figures."""
        return self.usd_per_million / 1e6 * self.items_per_s * 3600


PUBLISHED = (
    Published(platform="cloud_run", cold_start_s=45, warm_start_s=2, items_per_s=85, usd_per_million=12.50),
    Published(platform="modal", cold_start_s=18, warm_start_s=1, items_per_s=120, usd_per_million=8.75),
    Published(platform="runpod", cold_start_s=120, warm_start_s=5, items_per_s=95, usd_per_million=6.20),
)
"""The public comparison that this project started from. Its monthly costs ignore cold starts; the
simulator adds them.

Modal's warm start is given there as "less than 1 s"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of one platform in the comparison; None means unknown."""

    platform: str
    machine: str
    cold_start_s: float | None
    """Mean time from the order to the first item."""
    warm_start_s: float | None
    """The same in a container that was used before."""
    keeps_warm: bool
    """Whether containers wait for the next GPU job, so that warm starts are possible."""
    items_per_s: float
    """Mean throughput of one GPU worker."""
    all_items_per_s: float
    """Highest throughput of all GPU workers together."""
    p95_s: float | None
    """95th percentile of the time that an item's micro-batch took."""
    ramp_up_s: float
    """Time from the order until `ramp_up_workers` were at work."""
    ramp_up_workers: int
    """Highest number of GPU workers at work at the same time."""
    regions: tuple[str, ...]
    max_workers: int | None
    """Maximum number of GPU workers alive at the same time; None means unlimited."""
    availability: float | None
    """Share of the `num_orders` past GPU jobs that got GPU workers."""
    num_orders: int
    usd_per_million: float
    """Cost of a million items while GPU workers are at work."""
    usd_per_month: float
    """Cost of the month's volume for the work alone."""
    usd_per_month_with_starts: float
    """The same with everything else that is billed: cold starts, idle times, minimum charges."""
    month_hours: float
    """Total duration of the month's campaigns, one after another."""


def from_published(published: Published, volume: Volume, known: Sequence[Offer]) -> Figures:
    """Return what the published figures amount to in a simulated month.

    Args:
        published: The published figures of one platform.
        volume: The volume of the month.
        known: The platform's offers, for regions, limits and billing rules.
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
    """Return the figures of a simulated month with GPU workers that all start and work equally fast.

    Args:
        offer: The offer with its price and billing rules.
        start_s: Time of each GPU worker from the order to its first item.
        items_per_s: Throughput of each GPU worker.
        volume: The volume of the month.
        known: The platform's offers, for regions and limits.
    """
    behaviour = OfferBehaviour(offer=offer, start_s=lambda _: start_s, speed=lambda _: items_per_s)
    per_campaign = max(_CHUNKS, volume.items // volume.campaigns)
    work = SimulatedWork(num_chunks=_CHUNKS, items_per_chunk=per_campaign // _CHUNKS, item_s=1.0)
    policy = Policy(
        platforms=(offer.platform,), max_workers=volume.max_workers, is_canary_first=False, objective="cheapest"
    )
    expected_s = per_campaign / items_per_s / volume.max_workers
    outcome = simulate(work, [behaviour], policy, 0, tick_s=max(1.0, expected_s / _LOOKS))
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
    """Return the platform's cheapest offer, for its billing rules; if none is known, this machine's."""
    return min(known, key=lambda each: each.usd_per_hour) if known else replace(LOCAL, platform=platform)


def choose_when(figures: Sequence[Figures]) -> list[str]:
    """Return a sentence for each platform about when to choose it; those that are never the best come last."""
    if len(figures) == 1:
        return [f"Only {figures[0].platform} has figures: there is nothing to choose from."]
    best_at = {each.platform: _best_at(each, figures) for each in figures}
    return [
        f"Choose {platform} when {', or '.join(best)}." if best else f"{platform} is best at none of these."
        for platform, best in sorted(best_at.items(), key=lambda pair: not pair[1])
    ]


def _best_at(one: Figures, all_of_them: Sequence[Figures]) -> list[str]:
    def is_least(of: Callable[[Figures], float]) -> bool:
        best, second = sorted(map(of, all_of_them))[:2]
        return of(one) == best and second > best + _CLEARLY * abs(best)

    reasons: tuple[tuple[Callable[[Figures], float], str], ...] = (
        (lambda each: each.usd_per_month_with_starts, "a month's bill matters most"),
        (_start_s, "campaigns are short or frequent, so that cold starts matter"),
        (lambda each: each.warm_start_s or _start_s(each), "one campaign follows another immediately"),
        (lambda each: -each.items_per_s, "one GPU worker must do as much as possible"),
        (lambda each: -(each.availability or 0.0), "GPU workers must be available when they are ordered"),
    )
    return [reason for of, reason in reasons if is_least(of)]


def _start_s(each: Figures) -> float:
    return math.inf if each.cold_start_s is None else each.cold_start_s


def table(figures: Sequence[Figures]) -> list[dict[str, str]]:
    """Return one row per figure, with one column per platform."""
    rows: dict[str, Callable[[Figures], str]] = {
        "GPU worker": lambda each: each.machine,
        "cold start": lambda each: "none seen" if each.cold_start_s is None else duration(each.cold_start_s),
        "warm start": _warm_start,
        "items/s, one GPU worker": lambda each: f"{each.items_per_s:.4g}",
        "items/s, all together": lambda each: f"{each.all_items_per_s:.4g}",
        "p95 latency": lambda each: _UNKNOWN if each.p95_s is None else duration(each.p95_s),
        "ramp-up": lambda each: f"{duration(each.ramp_up_s)} to {_workers(each.ramp_up_workers)}",
        "regions": lambda each: ", ".join(each.regions) or _UNKNOWN,
        "limit of GPU workers": lambda each: "none" if each.max_workers is None else _workers(each.max_workers),
        "availability": _availability,
        "$ per million": lambda each: f"{each.usd_per_million:.2f}",
        "$ a month, work alone": lambda each: f"{each.usd_per_month:.2f}",
        "$ a month, all": lambda each: f"{each.usd_per_month_with_starts:.2f}",
        "hours a month": lambda each: f"{each.month_hours:.1f}",
    }
    return [{"figure": name, **{each.platform: of(each) for each in figures}} for name, of in rows.items()]


NOTES = (
    ("start", "from the order until ready for the first item; a warm start is in a container that was used before"),
    ("p95 latency", "for 95 % of the items, loading and computing their micro-batch took no longer than this"),
    ("ramp-up", "from the order until the highest number of GPU workers was at work at the same time"),
    (
        "availability",
        "share of GPU jobs under this store root that got GPU workers; failures of our own do not count",
    ),
    ("work alone", "the cost of items while GPU workers are at work"),
    ("all", "a simulated month with all cold starts, idle times and minimum charges that the platform bills"),
)
"""What the rows of the table mean."""


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
