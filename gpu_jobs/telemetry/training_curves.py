"""Metrics that long items write into the store while they run, such as the loss of a fine-tuning run."""

import io

import polars as pl

from gpu_jobs.ledger import keys
from gpu_jobs.store import Store


class Curves:
    """Reads the metrics of long items; keeps what it has read, since stored metrics never change."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: set[str] = set()
        self._parts: dict[int, list[tuple[float, pl.DataFrame]]] = {}

    def look(self) -> dict[int, pl.DataFrame]:
        """One row for each step, by the item's position in the dataset; items without metrics are left out.

        The columns are the workload's. Where a later attempt measured a step again, the later value counts.
        """
        for entry in self._store.list(keys.METRICS):
            if entry.key in self._seen or (body := self._store.get(entry.key)) is None:
                continue
            self._seen.add(entry.key)
            index = int(keys.stem(entry.key))
            self._parts.setdefault(index, []).append((entry.stored_at, pl.read_parquet(io.BytesIO(body))))
        return {index: _joined(parts) for index, parts in sorted(self._parts.items())}


def _joined(parts: list[tuple[float, pl.DataFrame]]) -> pl.DataFrame:
    """Merge the rows of each step: training and evaluation write one row each, so each column keeps its last value."""
    rows = pl.concat([part for _, part in sorted(parts, key=lambda each: each[0])])
    return rows.group_by("step").agg(pl.all().drop_nulls().last()).sort("step")
