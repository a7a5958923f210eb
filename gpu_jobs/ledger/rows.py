"""The format of a part: one Arrow stream of rows, with an outcome for every item.

The columns are `item_index`, `item`, `outcome` ("row", "error" or "empty"), `error` (why the item has no rows), and
then the workload's own.
Each item has one or more rows with the outcome "row", or one with "error", or one with "empty". An item of which only
a part can be used has both: its rows, and then the one with "error".
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from gpu_jobs.errors import ItemError

ROW, ERROR, EMPTY = "row", "error", "empty"
FRAME_COLUMNS: dict[str, Any] = {
    "item_index": pl.Int64,
    "item": pl.String,
    "outcome": pl.String,
    "error": pl.String,
}


def schema(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {**FRAME_COLUMNS, **columns}


def item_rows(index: int, item: str, outcome: Sequence[Mapping[str, Any]] | ItemError) -> list[dict[str, Any]]:
    """The rows of one item."""
    if isinstance(outcome, ItemError):
        why = {"item_index": index, "item": item, "outcome": ERROR, "error": str(outcome)}
        return [*(item_rows(index, item, outcome.rows) if outcome.rows else ()), why]
    if not outcome:
        return [{"item_index": index, "item": item, "outcome": EMPTY}]
    return [{"item_index": index, "item": item, "outcome": ROW, **row} for row in outcome]


def encode(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer)
    return buffer.getvalue()


def decode(body: bytes) -> pl.DataFrame:
    return pl.read_ipc_stream(io.BytesIO(body))


def failed_items(body: bytes) -> list[int]:
    """Positions in the dataset of those items that have an error."""
    return decode(body).filter(pl.col("outcome") == ERROR)["item_index"].to_list()


def join(bodies: Sequence[bytes]) -> bytes:
    """Concatenate encoded frames that have the same schema."""
    return bodies[0] if len(bodies) == 1 else encode(pl.concat([decode(body) for body in bodies]))
