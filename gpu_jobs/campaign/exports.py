"""Publish files in a workload's own format, in addition to the tables."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import polars as pl

from gpu_jobs.ledger.items import ItemsReader
from gpu_jobs.ledger.journal import Journal
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Plan
from gpu_jobs.store import Store
from gpu_jobs.workloads.base import BaseWorkload, Item, Results


def export(
    workload: BaseWorkload,
    store: Store,
    plan: Plan,
    *,
    rows: pl.LazyFrame,
    quarantine: pl.DataFrame,
    left: Sequence[Chunk],
    created_at: datetime,
    folder: Path,
) -> list[Path]:
    """Let the workload write its own files into `folder`; `left` names the items that are still open."""
    items = ItemsReader(store, plan)
    errors: dict[int, str] = dict(quarantine.select("item_index", "detail").iter_rows())
    ranges = sorted([*left, *(Chunk(index, index + 1) for index in errors)])

    def without_rows() -> Iterator[tuple[Item, str | None]]:
        for each in ranges:
            for index, item in enumerate(items.read(each), each.start):
                yield item, errors.get(index)

    opened = Journal(store).read().opened
    deadline = opened.policy.deadline if opened else None
    results = Results(
        campaign=store.uri,
        dataset=plan.dataset,
        rows=rows,
        without_rows=without_rows,
        is_complete=not left,
        has_expired=deadline is not None and deadline <= created_at,
        created_at=created_at,
    )
    return list(workload.export(results, folder))
