"""Converts what a workload returns or raises into messages of the compute process."""

import textwrap
from collections.abc import Mapping
from typing import Any

import polars as pl

from gpu_jobs.errors import ItemError
from gpu_jobs.ledger import rows
from gpu_jobs.worker.messages import Learned
from gpu_jobs.workloads.base import BaseWorkload

_MAX_DETAIL = 500


def describe(error: BaseException) -> str:
    """Describe an exception in one line: its type and message, or for an `ItemError` its message alone."""
    text = str(error) if isinstance(error, ItemError) else f"{type(error).__name__}: {error}"
    return textwrap.shorten(text, _MAX_DETAIL, placeholder="…")


def item_frame(schema: Mapping[str, Any], index: int, item: str, outcome: Any) -> tuple[pl.DataFrame, bool]:
    """Return one item's rows in the given schema, and whether the item failed."""
    try:
        found = rows.item_rows(index, item, outcome)
        return pl.DataFrame(found, schema=schema, orient="row"), isinstance(outcome, ItemError)
    except Exception as error:  # noqa: BLE001 - rows that do not fit the declared columns
        failure = ItemError(f"its rows do not fit the workload's columns: {describe(error)}")
        return pl.DataFrame(rows.item_rows(index, item, failure), schema=schema, orient="row"), True


def learned_by(workload: BaseWorkload) -> Learned:
    """Return what the workload has found out so far."""
    size = workload.batch_size
    return Learned(dict(workload.facts), size.value if size and size.is_final else 0)
