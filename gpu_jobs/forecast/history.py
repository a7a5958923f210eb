"""The outlook of a campaign: a forecast from what it and earlier campaigns measured, kept and scored at the end."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AliasChoices, Field, TypeAdapter

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.errors import FanfoldError
from gpu_jobs.forecast.forecast import Forecast, chunk_weights, forecast, score, table, virtual
from gpu_jobs.forecast.simulator import SimulatedWork
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger import keys
from gpu_jobs.store import campaign_names, open_store
from gpu_jobs.telemetry.measure import samples_from
from gpu_jobs.telemetry.samples import Samples
from gpu_jobs.telemetry.workers import Lives

_MAX_EARLIER = 5
"""How many earlier campaigns of the same workload are read; the newest ones by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A forecast and when it was made."""

    forecast: Annotated[Forecast, Field(validation_alias=AliasChoices("forecast", "told"))]
    at: datetime
    spent_usd: float
    """Dollars that had been spent before."""
    version: int = 1


_OUTLOOK = TypeAdapter(Outlook)


def look_ahead(campaign: Campaign, policy: Policy, offers: Sequence[Offer], now: datetime) -> Outlook | None:
    """Forecast the rest of a campaign; None if nothing was measured yet, neither here nor in earlier campaigns.

    The first outlook of a campaign is kept in its store; later ones are only returned.
    """
    samples = _relevant(samples_of(campaign), earlier_samples(campaign), offers)
    if not any(found.items_per_s for found in samples.values()):
        return None
    left_s = None if policy.deadline is None else (policy.deadline - now).total_seconds()
    progress = campaign.status()
    work = SimulatedWork(
        num_chunks=max(1, progress.chunks_left),
        items_per_chunk=max(1, round(progress.items_left / max(1, progress.chunks_left))),
        item_s=1.0,
        weight=chunk_weights(),
    )
    left_usd = None if policy.budget_usd is None else max(0.0, policy.budget_usd - progress.spent_usd)
    expected = forecast(work, offers, replace(virtual(policy, left_s), budget_usd=left_usd), samples)
    outlook = Outlook(forecast=expected, at=now, spent_usd=progress.spent_usd)
    campaign.store.create(keys.FORECAST, _OUTLOOK.dump_json(outlook))
    return outlook


def kept_outlook(campaign: Campaign) -> Outlook | None:
    """Return the first outlook of a campaign; None if there is none."""
    body = campaign.store.get(keys.FORECAST)
    return None if body is None else _OUTLOOK.validate_json(body)


def outcome(campaign: Campaign, outlook: Outlook) -> tuple[float, float] | None:
    """Return the dollars and seconds that the campaign has really needed since; None while items are open."""
    progress, closed = campaign.status(), campaign.journal.read().closed
    if closed is None or not progress.is_complete:
        return None
    return progress.spent_usd - outlook.spent_usd, (closed.at - outlook.at).total_seconds()


def scored(campaign: Campaign) -> str:
    """Return a sentence that compares the first outlook with the outcome; "" if there is none, or items are open."""
    outlook = kept_outlook(campaign)
    found = outcome(campaign, outlook) if outlook else None
    return score(outlook.forecast, *found) if outlook and found else ""


def forecast_text(uri: str, policy: Policy, offers: Sequence[Offer]) -> str:
    """Return the outlook of a planned campaign as a table for a terminal.

    Raises:
        CampaignError: There is no campaign at `uri`.
    """
    outlook = look_ahead(Campaign.open(uri), policy, offers, datetime.now(UTC))
    if outlook is None:
        return (
            "no forecast: nothing was measured yet in this campaign or earlier ones of this workload; run a chunk first"
        )
    rows = table(outlook.forecast)
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"recommended: {outlook.forecast.why}"])


def earlier_samples(campaign: Campaign) -> dict[OfferKey, Samples]:
    """Return what the newest campaigns with the same workload and parameters under the same root measured."""
    root, _, own = campaign.store.uri.rpartition("/")
    return _added([samples_of(other) for other in _like(root, campaign.plan.workload, campaign.plan.params, own)])


def earlier_pace(store_root: str, workload: str, params: Mapping[str, Any]) -> float | None:
    """Return the weight per second of a GPU worker of speed 1 in the same campaigns; None if nothing was measured."""
    paces = []
    for other in _like(store_root.rstrip("/"), workload, params):
        speeds = {
            entry.order.offer.key: entry.order.offer.worker_speed for entry in other.journal.read().orders.values()
        }
        weight = other.plan.total_weight / other.plan.num_items
        paces += [weight * each / speeds[key] for key, found in samples_of(other).items() for each in found.items_per_s]
    return sum(paces) / len(paces) if paces else None


def _like(root: str, workload: str, params: Mapping[str, Any], but: str = "") -> Iterator[Campaign]:
    """Yield the newest campaigns under a root with the same workload and parameters."""
    if root.startswith("memory:"):
        return
    found = 0
    for name in sorted(campaign_names(open_store(root)), reverse=True):
        if name == but or found == _MAX_EARLIER:
            continue
        try:
            other = Campaign.open(f"{root}/{name}")
        except FanfoldError:
            continue  # another program's folder, or an incomplete campaign
        if (other.plan.workload, other.plan.params) == (workload, params):
            found += 1
            yield other


def samples_of(campaign: Campaign) -> dict[OfferKey, Samples]:
    """Return what a campaign measured of each offer, from its GPU workers' heartbeats and its journal."""
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
