"""Platforms beside one another, as people ask for it: starts, pace, dollars per million, and what a month costs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpu_jobs.campaign import Campaign
from gpu_jobs.forecast import Samples
from gpu_jobs.jobs import Policy
from gpu_jobs.offers import LOCAL, Offer
from gpu_jobs.outlook import samples_of
from gpu_jobs.simulate import Truth, Work, simulate

_CHUNKS = 200
_P95 = 0.95


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
"""The public comparison that this project began with. It has no month with cold starts; the simulator adds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One row of the comparison; None: not known."""

    platform: str
    cold_start_s: float
    warm_start_s: float | None
    items_per_s: float
    """Of one GPU worker."""
    p95_item_s: float | None
    ramp_up_s: float
    """Until all GPU workers of a campaign work."""
    regions: tuple[str, ...]
    max_workers: int | None
    availability: float | None
    """Of past orders, those that were not refused and did not fail."""
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
    truth = Truth(offer=offer, start_s=lambda _: published.cold_start_s, speed=lambda _: published.items_per_s)
    return _figures(
        truth,
        volume,
        cold_start_s=published.cold_start_s,
        warm_start_s=published.warm_start_s,
        items_per_s=published.items_per_s,
        known=known,
    )


def from_campaign(campaign: Campaign, platform: str, volume: Volume, known: Sequence[Offer]) -> Figures | None:
    """What one campaign on one platform measured, and what a month like it would come to; None: it measured nothing."""
    found = [(key, each) for key, each in samples_of(campaign).items() if key.platform == platform and each.items_per_s]
    if not found:
        return None
    key, samples = found[0]
    offer = next(
        (entry.order.offer for entry in campaign.journal.read().orders.values() if entry.order.offer.key == key),
        _offer_like(platform, known),
    )
    pace = sum(samples.items_per_s) / len(samples.items_per_s)
    start_s = sum(samples.starts_s) / len(samples.starts_s)
    truth = Truth(offer=offer, start_s=lambda _: start_s, speed=lambda _: pace)
    figures = _figures(truth, volume, cold_start_s=start_s, warm_start_s=None, items_per_s=pace, known=known)
    slowest = sorted(1 / each for each in samples.items_per_s)
    return replace(
        figures,
        p95_item_s=slowest[min(len(slowest) - 1, int(_P95 * len(slowest)))],
        ramp_up_s=max(samples.starts_s),
        availability=_availability(samples),
    )


def _figures(
    truth: Truth,
    volume: Volume,
    *,
    cold_start_s: float,
    warm_start_s: float | None,
    items_per_s: float,
    known: Sequence[Offer],
) -> Figures:
    offer = truth.offer
    per_campaign = max(_CHUNKS, volume.items // volume.campaigns)
    work = Work(num_chunks=_CHUNKS, items_per_chunk=per_campaign // _CHUNKS, item_s=1.0)
    policy = Policy(
        platforms=(offer.platform,), max_workers=volume.max_workers, is_canary_first=False, objective="cheapest"
    )
    outcome = simulate(work, [truth], policy, 0, tick_s=1.0)
    share = volume.items / work.num_items
    per_million = offer.usd_per_hour / 3600 / items_per_s * 1e6
    return Figures(
        platform=offer.platform,
        cold_start_s=cold_start_s,
        warm_start_s=warm_start_s,
        items_per_s=items_per_s,
        p95_item_s=None,
        ramp_up_s=cold_start_s,
        regions=tuple(dict.fromkeys(each.region for each in known)),
        max_workers=max((each.max_alive or each.max_workers for each in known), default=None),
        availability=None,
        usd_per_million=per_million,
        usd_per_month=per_million * volume.items / 1e6,
        usd_per_month_with_starts=outcome.usd * share,
        month_hours=outcome.finish_s * share / 3600,
    )


def _offer_like(platform: str, known: Sequence[Offer]) -> Offer:
    """The platform's rules, by its cheapest offer; this machine's, if none is known."""
    return min(known, key=lambda each: each.usd_per_hour) if known else replace(LOCAL, platform=platform)


def _availability(samples: Samples) -> float | None:
    return None if not samples.orders else 1 - samples.failed_orders / samples.orders


def choose_when(figures: Sequence[Figures]) -> list[str]:
    """A sentence for each platform that is best at something."""
    sentences = []
    for each in figures:
        best = []
        if each.usd_per_month_with_starts == min(other.usd_per_month_with_starts for other in figures):
            best.append("a month's bill matters most")
        if each.cold_start_s == min(other.cold_start_s for other in figures):
            best.append("campaigns are short or frequent, so that cold starts count")
        if each.items_per_s == max(other.items_per_s for other in figures):
            best.append("one GPU worker must do as much as possible")
        if best:
            sentences.append(f"Choose {each.platform} when {', or '.join(best)}.")
    return sentences


def table(figures: Sequence[Figures]) -> list[dict[str, str]]:
    """One row for each platform."""
    return [
        {
            "platform": each.platform,
            "cold start": f"{each.cold_start_s:.0f} s",
            "warm start": "not measured" if each.warm_start_s is None else f"{each.warm_start_s:.0f} s",
            "items/s": f"{each.items_per_s:.4g}",
            "p95 item": "not measured" if each.p95_item_s is None else f"{each.p95_item_s:.3g} s",
            "ramp-up": f"{each.ramp_up_s:.0f} s",
            "regions": ", ".join(each.regions) or "unknown",
            "GPU workers": "any number" if each.max_workers is None else str(each.max_workers),
            "availability": "not measured" if each.availability is None else f"{each.availability:.0%}",
            "$ per million": f"{each.usd_per_million:.2f}",
            "$ a month, work alone": f"{each.usd_per_month:.2f}",
            "$ a month, all": f"{each.usd_per_month_with_starts:.2f}",
            "hours a month": f"{each.month_hours:.1f}",
        }
        for each in figures
    ]
