"""The outlook of a campaign: what its store and its neighbours know, made into a forecast, kept, scored at the end."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.errors import FanfoldError
from gpu_jobs.forecast.forecast import Forecast, chunk_weights, forecast, score, table, virtual
from gpu_jobs.forecast.simulator import Work
from gpu_jobs.jobs.costs import left_usd
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger import keys
from gpu_jobs.store import campaign_names, open_store
from gpu_jobs.telemetry.measure import samples_from
from gpu_jobs.telemetry.samples import Samples
from gpu_jobs.telemetry.workers import Lives

_MAX_EARLIER = 5
"""Campaigns of the same workload that are looked at, the newest by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A forecast as it was told, and when."""

    told: Forecast
    at: datetime
    spent_usd: float
    """Before it was told."""
    version: int = 1


_OUTLOOK = TypeAdapter(Outlook)


def look_ahead(campaign: Campaign, policy: Policy, offers: Sequence[Offer], now: datetime) -> Outlook | None:
    """Forecast what is left of a campaign, and keep it; None while nothing was measured, here or in earlier ones.

    The first outlook of a campaign is kept in its store; later ones are only returned.
    """
    samples = _relevant(samples_of(campaign), earlier_samples(campaign), offers)
    if not any(found.items_per_s for found in samples.values()):
        return None
    left_s = None if policy.deadline is None else (policy.deadline - now).total_seconds()
    progress = campaign.status()
    work = Work(
        num_chunks=max(1, progress.chunks_left),
        items_per_chunk=max(1, round(progress.items_left / max(1, progress.chunks_left))),
        item_s=1.0,
        weight=chunk_weights(),
    )
    # what is set aside for living GPU jobs pays for a part of the work that is forecast, so it is not taken off
    budget_usd = left_usd(policy.budget_usd, spent_usd=progress.spent_usd, reserved_usd=0.0)
    told = forecast(work, offers, replace(virtual(policy, left_s), budget_usd=budget_usd), samples)
    outlook = Outlook(told=told, at=now, spent_usd=progress.spent_usd)
    campaign.store.create(keys.FORECAST, _OUTLOOK.dump_json(outlook))
    return outlook


def kept_outlook(campaign: Campaign) -> Outlook | None:
    """The first outlook that was told of a campaign."""
    body = campaign.store.get(keys.FORECAST)
    return None if body is None else _OUTLOOK.validate_json(body)


def outcome(campaign: Campaign, outlook: Outlook) -> tuple[float, float] | None:
    """Dollars and seconds that it has really taken since; None while items are open."""
    progress, closed = campaign.status(), campaign.journal.read().closed
    if closed is None or not progress.is_complete:
        return None
    return progress.spent_usd - outlook.spent_usd, (closed.at - outlook.at).total_seconds()


def scored(campaign: Campaign) -> str:
    """How the first outlook has turned out, in a sentence; "" if there was none or items are open."""
    outlook = kept_outlook(campaign)
    found = outcome(campaign, outlook) if outlook else None
    return score(outlook.told, *found) if outlook and found else ""


def forecast_text(uri: str, policy: Policy, offers: Sequence[Offer]) -> str:
    """The outlook of a planned campaign as a table for a terminal. Raises `CampaignError` if there is none at `uri`."""
    outlook = look_ahead(Campaign.open(uri), policy, offers, datetime.now(UTC))
    if outlook is None:
        return "nothing was measured yet, here or in earlier campaigns of this workload: a first chunk must run before"
    rows = table(outlook.told)
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"recommended: {outlook.told.why}"])


def earlier_samples(campaign: Campaign) -> dict[OfferKey, Samples]:
    """What the newest campaigns of the same workload and parameters under the same root have measured."""
    root, _, own = campaign.store.uri.rpartition("/")
    return _added([samples_of(other) for other in _like(root, campaign.plan.workload, campaign.plan.params, own)])


def earlier_pace(store_root: str, workload: str, params: Mapping[str, Any]) -> float | None:
    """Weight a second of a GPU worker of speed 1, by the same campaigns; None: nothing was measured."""
    paces = []
    for other in _like(store_root.rstrip("/"), workload, params):
        speeds = {
            entry.order.offer.key: entry.order.offer.worker_speed for entry in other.journal.read().orders.values()
        }
        weight = other.plan.total_weight / other.plan.num_items
        paces += [weight * each / speeds[key] for key, found in samples_of(other).items() for each in found.items_per_s]
    return sum(paces) / len(paces) if paces else None


def _like(root: str, workload: str, params: Mapping[str, Any], but: str = "") -> Iterator[Campaign]:
    """The newest campaigns under a root that did the same with other items."""
    if root.startswith("memory:"):
        return
    found = 0
    for name in sorted(campaign_names(open_store(root)), reverse=True):
        if name == but or found == _MAX_EARLIER:
            continue
        try:
            other = Campaign.open(f"{root}/{name}")
        except FanfoldError:
            continue  # another's folder, or half a campaign
        if (other.plan.workload, other.plan.params) == (workload, params):
            found += 1
            yield other


def samples_of(campaign: Campaign) -> dict[OfferKey, Samples]:
    """What a campaign has measured of each offer, by its GPU workers' heartbeats and its journal."""
    return samples_from(campaign.journal.read(), Lives(campaign.ledger.heartbeats()))


def _relevant(
    own: Mapping[OfferKey, Samples], earlier: Mapping[OfferKey, Samples], offers: Sequence[Offer]
) -> dict[OfferKey, Samples]:
    offered = {offer.key for offer in offers}
    return {key: found for key, found in _added([own, earlier]).items() if key in offered}


def _added(many: Sequence[Mapping[OfferKey, Samples]]) -> dict[OfferKey, Samples]:
    total: dict[OfferKey, Samples] = {}
    for each in many:
        for key, found in each.items():
            known = total.get(key, Samples())
            total[key] = Samples(
                starts_s=known.starts_s + found.starts_s,
                warm_starts_s=known.warm_starts_s + found.warm_starts_s,
                items_per_s=known.items_per_s + found.items_per_s,
                orders=known.orders + found.orders,
                failed_orders=known.failed_orders + found.failed_orders,
                worker_hours=known.worker_hours + found.worker_hours,
                preemptions=known.preemptions + found.preemptions,
            )
    return total
