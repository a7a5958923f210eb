"""The outlook of a campaign: a forecast from what it and earlier campaigns measured, kept and scored at the end."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, NamedTuple

from pydantic import AliasChoices, Field, TypeAdapter

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.progress import spent_usd
from gpu_jobs.errors import FanfoldError
from gpu_jobs.forecast.forecast import Forecast, chunk_weights, forecast, score, table, virtual
from gpu_jobs.forecast.simulator import SimulatedWork
from gpu_jobs.jobs.costs import left_usd
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger import keys
from gpu_jobs.store import campaign_names, open_store
from gpu_jobs.telemetry.measure import samples_from
from gpu_jobs.telemetry.samples import Samples
from gpu_jobs.telemetry.snapshot import Snapshot

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


def look_ahead(
    campaign: Campaign,
    snapshot: Snapshot,
    policy: Policy,
    offers: Sequence[Offer],
    earlier: Mapping[OfferKey, Samples],
) -> Outlook | None:
    """Forecast the rest of a campaign; None if nothing was measured yet, neither here nor in earlier campaigns.

    The first outlook of a campaign is kept in its store; later ones are only returned.

    Args:
        campaign: whose store keeps the outlook.
        snapshot: what that store says now.
        policy: what the campaign may use.
        offers: what can be ordered under it.
        earlier: what earlier campaigns of the same workload measured.
    """
    samples = _relevant(samples_from(snapshot.journal, snapshot.workers), earlier, offers)
    if not any(found.items_per_s for found in samples.values()):
        return None
    now = snapshot.at
    left_s = None if policy.deadline is None else (policy.deadline - now).total_seconds()
    chunks_left = max(1, len(snapshot.chunks.open))
    work = SimulatedWork(
        num_chunks=chunks_left,
        items_per_chunk=max(1, round(snapshot.chunks.items_left / chunks_left)),
        item_s=1.0,
        weight=chunk_weights(),
    )
    spent = spent_usd(snapshot.journal, snapshot.workers, now)
    # what is set aside for living GPU jobs pays for a part of the work that is forecast, so it is not taken off
    budget_usd = left_usd(policy.budget_usd, spent_usd=spent, reserved_usd=0.0)
    expected = forecast(work, offers, replace(virtual(policy, left_s), budget_usd=budget_usd), samples)
    outlook = Outlook(forecast=expected, at=now, spent_usd=spent)
    campaign.store.create(keys.FORECAST, _OUTLOOK.dump_json(outlook))
    return outlook


def kept_outlook(campaign: Campaign) -> Outlook | None:
    """Return the first outlook of a campaign; None if there is none."""
    body = campaign.store.get(keys.FORECAST)
    return None if body is None else _OUTLOOK.validate_json(body)


def outcome(snapshot: Snapshot, outlook: Outlook) -> tuple[float, float] | None:
    """Return the dollars and seconds that the campaign has really needed since; None while items are open."""
    closed = snapshot.journal.closed
    if closed is None or snapshot.chunks.items_left:
        return None
    spent = spent_usd(snapshot.journal, snapshot.workers, snapshot.at)
    return spent - outlook.spent_usd, (closed.at - outlook.at).total_seconds()


def scored(campaign: Campaign, snapshot: Snapshot) -> str:
    """Return a sentence that compares the first outlook with the outcome; "" if there is none, or items are open."""
    outlook = kept_outlook(campaign)
    found = outcome(snapshot, outlook) if outlook else None
    return score(outlook.forecast, *found) if outlook and found else ""


def forecast_text(uri: str, policy: Policy, offers: Sequence[Offer]) -> str:
    """Return the outlook of a planned campaign as a table for a terminal.

    Raises:
        CampaignError: There is no campaign at `uri`.
    """
    campaign = Campaign.open(uri)
    earlier = EarlierCampaigns(root_of(uri)).samples(campaign)
    outlook = look_ahead(campaign, campaign.snapshot(), policy, offers, earlier)
    if outlook is None:
        return (
            "no forecast: nothing was measured yet in this campaign or earlier ones of this workload; run a chunk first"
        )
    rows = table(outlook.forecast)
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, f"recommended: {outlook.forecast.why}"])


class EarlierCampaigns:
    """What the newest campaigns under one store root have measured. Each is read once."""

    def __init__(self, store_root: str) -> None:
        self._root = store_root.rstrip("/")
        self._found: dict[str, list[_Earlier]] = {}

    def samples(self, campaign: Campaign) -> dict[OfferKey, Samples]:
        """What campaigns of the same workload and parameters measured, this one apart."""
        plan, own = campaign.plan, campaign.store.uri
        others = [each for each in self._like(plan.workload, plan.params) if each.campaign.store.uri != own]
        return _added([each.samples for each in others[:_MAX_EARLIER]])

    def pace(self, workload: str, params: Mapping[str, Any]) -> float | None:
        """Weight a second of a GPU worker of speed 1, by the same campaigns; None: nothing was measured."""
        paces = []
        for each in self._like(workload, params)[:_MAX_EARLIER]:
            weight = each.campaign.plan.total_weight / each.campaign.plan.num_items
            paces += [
                weight * pace / each.speeds[key] for key, found in each.samples.items() for pace in found.items_per_s
            ]
        return sum(paces) / len(paces) if paces else None

    def _like(self, workload: str, params: Mapping[str, Any]) -> list["_Earlier"]:
        """The newest campaigns that did the same with other items; one more than is used, in case one is our own."""
        key = json.dumps([workload, dict(params)], sort_keys=True)
        if key not in self._found:
            self._found[key] = list(islice(self._search(workload, params), _MAX_EARLIER + 1))
        return self._found[key]

    def _search(self, workload: str, params: Mapping[str, Any]) -> Iterator["_Earlier"]:
        if self._root.startswith("memory:"):
            return
        for name in sorted(campaign_names(open_store(self._root)), reverse=True):
            try:
                other = Campaign.open(f"{self._root}/{name}")
            except FanfoldError:
                continue  # another's folder, or half a campaign
            if (other.plan.workload, other.plan.params) == (workload, params):
                yield _Earlier.read(other)


class _Earlier(NamedTuple):
    """One campaign, as far as forecasts look at it."""

    campaign: Campaign
    samples: dict[OfferKey, Samples]
    speeds: dict[OfferKey, float]
    """The relative speed of each offer that it used, from the price list of its time."""

    @classmethod
    def read(cls, campaign: Campaign) -> "_Earlier":
        journal, workers = campaign.journal.read(), campaign.workers()
        offers = [entry.order.offer for entry in journal.orders.values()]
        speeds = {offer.key: offer.worker_speed for offer in offers}
        return cls(campaign, samples_from(journal, workers), speeds)


def root_of(campaign_uri: str) -> str:
    """The store root that a campaign lies under."""
    return campaign_uri.rstrip("/").rpartition("/")[0]


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
