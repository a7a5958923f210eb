"""What long items measure while they are worked on: rows in the store, that anybody can watch."""

import io

import polars as pl

from gpu_jobs.ledger import keys
from gpu_jobs.store import Store


class Curves:
    """Reads what was measured; keeps what it has read, since it never changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: set[str] = set()
        self._parts: dict[int, list[tuple[float, pl.DataFrame]]] = {}

    def look(self) -> dict[int, pl.DataFrame]:
        """Rows by step for each item (its position in the dataset) that has any.

        Columns as the workload's; where an attempt measured a step again, the later measurement counts.
        """
        for entry in self._store.list(keys.METRICS):
            if entry.key in self._seen or (body := self._store.get(entry.key)) is None:
                continue
            self._seen.add(entry.key)
            index = int(keys.stem(entry.key))
            self._parts.setdefault(index, []).append((entry.stored_at, pl.read_parquet(io.BytesIO(body))))
        return {index: _joined(parts) for index, parts in sorted(self._parts.items())}


def _joined(parts: list[tuple[float, pl.DataFrame]]) -> pl.DataFrame:
    """Training and evaluation of a step are rows of their own, so that each column keeps its last value."""
    rows = pl.concat([part for _, part in sorted(parts, key=lambda each: each[0])])
    return rows.group_by("step").agg(pl.all().drop_nulls().last()).sort("step")
