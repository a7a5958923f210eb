"""Makes domain objects with every field filled in; a test names only the fields that it is about."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Order, Policy
from gpu_jobs.ledger import rows
from gpu_jobs.ledger.items import write_items
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Plan
from gpu_jobs.store.base import Store
from gpu_jobs.workloads.noop import Noop, value_of

_AT = datetime(2026, 11, 24, 12, tzinfo=UTC)


def an_offer(**changes: Any) -> Offer:
    """Make an offer; by default a GPU for a hundredth of a cent per second."""
    offer = Offer(
        platform="fake",
        gpu="l4",
        num_gpus=1,
        region="here",
        mode="on-demand",
        usd_per_hour=0.36,
        priced_on=_AT.date(),
        price_source="made up",
        max_workers=8,
    )
    return replace(offer, **changes)


def an_order(**changes: Any) -> Order:
    order = Order(
        name="ff-00000000-00000000-0002",
        campaign_uri="memory://test",
        offer=an_offer(),
        num_workers=1,
        expires_at=_AT + timedelta(days=3650),
        reserved_usd=0.36,
    )
    return replace(order, **changes)


def a_policy(**changes: Any) -> Policy:
    return replace(Policy(platforms=("fake",)), **changes)


def a_plan(**changes: Any) -> Plan:
    """Make a plan; by default six items, or `num_items`, in chunks of two."""
    num_items = changes.get("num_items", 6)
    plan = Plan(
        workload="noop",
        params={"sleep_s": 0.0, "rows_per_item": 1},
        dataset="made up",
        dataset_digest="0" * 64,
        sources="items/test/sources.parquet",
        items=(),
        num_items=num_items,
        total_weight=float(num_items),
        chunk_boundaries=(*range(0, num_items, 2), num_items),
        chunk_reason="as asked",
        versions={},
        created_at=_AT,
    )
    return replace(plan, **changes)


def item_id(index: int) -> str:
    """Return the id of an item of `plan_campaign`."""
    return f"item-{index:06d}"


def plan_campaign(store: Store, **changes: Any) -> Plan:
    """Write the items and the plan of a `noop` campaign, as opening a campaign would."""
    plan = a_plan(**changes)
    items = ({"item": item_id(index), "weight": 1.0, "fingerprint": ""} for index in range(plan.num_items))
    plan = replace(plan, items=write_items(store, "test", items).files)
    Ledger(store).create_plan(plan)
    return plan


def noop_rows(covered: Chunk) -> bytes:
    """Return the encoded rows of some items of such a campaign, as the workload `noop` computes them."""
    indices = range(*covered)
    ids = [item_id(index) for index in indices]
    columns = {
        "item_index": list(indices),
        "item": ids,
        "outcome": rows.ROW,
        "error": None,
        "value": [value_of(each) for each in ids],
    }
    return rows.encode(pl.DataFrame(columns, schema=rows.schema(Noop.columns)))
