"""A workload that does no work: for tests, and to measure the overhead of Fanfold itself."""

import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, ClassVar

import polars as pl
from pydantic import Field

from gpu_jobs.errors import ItemError
from gpu_jobs.workloads.base import Item, Params, Row, Workload


class NoopParams(Params):
    """How long items take and how many rows they give."""

    sleep_s: float = Field(default=0, ge=0, title="Seconds per item", description="How long to sleep for each item")
    rows_per_item: int = Field(default=1, ge=0, title="Rows per item", description="Number of output rows of each item")


class Noop(Workload):
    """Gives rows that depend only on the item's id: `value` of row k is a hash of "<id>" (k = 0) or "<id>/k"."""

    params: NoopParams
    params_model: ClassVar[type[Params]] = NoopParams
    columns: ClassVar[dict[str, Any]] = {"value": pl.Int64}
    micro_batch = 256
    load_threads = 1

    def infer(self, inputs: Sequence[Item]) -> Sequence[Sequence[Row] | ItemError]:
        if self.params.sleep_s:
            time.sleep(self.params.sleep_s * len(inputs))
        count = self.params.rows_per_item
        if count == 1:
            return [({"value": value_of(item["item"])},) for item in inputs]
        return [tuple({"value": value_of(item["item"], k)} for k in range(count)) for item in inputs]


def value_of(item_id: str, k: int = 0) -> int:
    """The value in row `k` of an item: a 56-bit BLAKE2b hash."""
    text = f"{item_id}/{k}" if k else item_id
    return int.from_bytes(blake2b(text.encode(), digest_size=7).digest())
