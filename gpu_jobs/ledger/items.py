"""The items table: ordered, immutable Parquet files beside the plan."""

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import polars as pl

from gpu_jobs.errors import AuditError, RefusedError
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.ledger import sha256
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import ItemsFile, Plan
from gpu_jobs.store.base import Store

ITEMS_PER_FILE = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenItems:
    """What `write_items` has put into the store, not yet part of any campaign."""

    files: tuple[ItemsFile, ...]
    weights: list[float]


def write_items(store: Store, nonce: str, items: Iterable[dict[str, Any]]) -> WrittenItems:
    """Write items in order, one file at a time. Raises `RefusedError` if two items have the same id."""
    seen, files, weights = set[str](), list[ItemsFile](), list[float]()
    left = iter(items)
    while batch := list(islice(left, ITEMS_PER_FILE)):
        for item in batch:
            if item["item"] in seen:
                raise RefusedError("dataset", f"item id '{item['item']}' occurs twice; ids must be unique")
            seen.add(item["item"])
        buffer = io.BytesIO()
        pl.DataFrame(batch, infer_schema_length=None).write_parquet(buffer)
        body, key = buffer.getvalue(), keys.items(nonce, len(files))
        store.create(key, body)
        files.append(ItemsFile(range=Chunk(len(weights), len(weights) + len(batch)), key=key, sha256=sha256(body)))
        weights.extend(float(item["weight"]) for item in batch)
    return WrittenItems(files=tuple(files), weights=weights)


class ItemsReader:
    """Reads ranges of items; keeps the last file that it read in memory."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self._store = store
        self._files = plan.items
        self._starts = [file.range.start for file in plan.items]
        self._cached: tuple[str, pl.DataFrame] = ("", pl.DataFrame())

    def read(self, wanted: Chunk) -> Iterator[dict[str, Any]]:
        """The items of `wanted`, in order."""
        at = wanted.start
        while at < wanted.stop:
            file = self._files[bisect_right(self._starts, at) - 1]
            stop = min(wanted.stop, file.range.stop)
            yield from self.frame(file).slice(at - file.range.start, stop - at).iter_rows(named=True)
            at = stop

    def frame(self, file: ItemsFile) -> pl.DataFrame:
        """All items of one file. Raises `AuditError` if the file does not have the checksum in the plan."""
        if self._cached[0] != file.key:
            body = self._store.get(file.key)
            if body is None or sha256(body) != file.sha256:
                raise AuditError(f"{file.key} is not what the plan recorded; the campaign cannot be trusted")
            self._cached = (file.key, pl.read_parquet(io.BytesIO(body)))
        return self._cached[1]

    def frames(self) -> Iterator[pl.DataFrame]:
        """All items in order, one frame per file."""
        return map(self.frame, self._files)
