"""The seam between Fanfold and what is done to the items."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol

import polars as pl
from pydantic import BaseModel, ConfigDict

from gpu_jobs.dataset.sources import Source
from gpu_jobs.errors import ItemError
from gpu_jobs.store import Store
from gpu_jobs.workloads.batch_size import BatchSize

Item = Mapping[str, Any]
"""One row of the items table: `item` (unique id), `weight` (cost in any one unit), `fingerprint` (of its input at the
split; "" if it has none), and whatever else `items` put in for `load`."""
Row = Mapping[str, Any]
"""One output row, by the names of `BaseWorkload.columns`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a campaign publishes, for a workload that publishes more than tables."""

    campaign: str
    """Where it is."""
    dataset: str
    rows: pl.LazyFrame
    """All output rows, in item order, with `item_index` and `item`."""
    without_rows: Callable[[], Iterator[tuple[Item, str | None]]]
    """The items that have none, in order, each with its error; None: it is still open."""
    is_complete: bool
    has_expired: bool
    """The campaign's deadline has passed."""
    created_at: datetime


class Params(BaseModel):
    """What a campaign may set of a workload. What is in here determines the rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BaseWorkload(ABC):
    """What `Workload` and `LongWorkload` have in common.

    `items`, `gpu_memory_gib`, `finish` and `export` run where the campaign is planned and collected, without a GPU:
    import torch and the like in `setup`, not at module level. The others run in a GPU worker's compute process.
    """

    params_model: ClassVar[type[Params]] = Params
    columns: ClassVar[Mapping[str, pl.DataType | type[pl.DataType]]]
    """Output columns and their types; `item_index` (position in the dataset) and `item` (id) are added."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Which files of a folder or prefix are inputs, by lower-case ending; empty: all."""
    batch_size: BatchSize | None = None
    """What the workload learns about its device at work; GPU workers tell one another. `setup` may set it."""
    num_previewed: int = 0
    """How many of the first items `preview` shall answer."""
    num_gpus: int = 1
    """GPUs that one GPU worker needs, if it runs on any."""
    batch_items: ClassVar[int] = 1
    """Items that it takes together even on the smallest device: chunks of fewer are slower."""

    def __init__(self, params: Any) -> None:
        """`params`: an instance of `params_model`."""
        self.params = params
        self.facts: dict[str, str] = {}
        """What `setup` found out, and rows may depend on: for the manifest."""

    def items(self, sources: Iterable[Source]) -> Iterator[Item]:
        """Split: turn inputs into items, in a lasting order. Default: each source is one item of weight 1."""
        for source in sources:
            yield {**source.columns, "item": source.id, "weight": 1.0, "fingerprint": source.fingerprint}

    def gpu_memory_gib(self) -> float:
        """GPU memory that one GPU worker needs at least, on all its GPUs together; 0: any, or not known here."""
        return 0.0

    def setup(self, device: str) -> None:
        """Load the model onto `device` ("cuda:0", "cpu"); called once, before the first lease."""

    def preview(self, items: Sequence[Item], device: str) -> Sequence[Row]:
        """Quick answers to the first items, each with `item`, in a process that `setup` does not run in."""
        del items, device
        return ()

    def load(self, item: Item) -> Any:
        """Read and decode one item on the CPU, after `setup`. Raise `ItemError` if it cannot be used."""
        return item

    def teardown(self) -> None:
        """Give back what `setup` took."""

    def finish(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Last touch on all rows in item order, when outputs are published: lazy, and cheap to stream.

        The items have been audited before; rows may be joined, changed or removed.
        """
        return rows

    def export(self, results: Results, folder: Path) -> Iterable[Path]:
        """Write further files of the results into `folder`; return those to publish beside the tables."""
        del results, folder
        return ()


class Workload(BaseWorkload):
    """Turns items into rows: `load` in threads, ahead of time, and `infer` in the one thread that owns the device."""

    micro_batch: int = 1
    """How many loaded items one `infer` takes at most; `setup` may set it. They finish together."""
    window_weight: float = math.inf
    """What these items may weigh together, unless it is one; `setup` may set it. Much less than `stall_s` of work."""
    load_threads: int = 2

    @abstractmethod
    def infer(self, inputs: Sequence[Any]) -> Sequence[Sequence[Row] | ItemError]:
        """Compute the rows of each input, in order; no rows is a valid outcome, and so is an `ItemError`."""


class Session(Protocol):
    """What a GPU worker gives to a long workload while it is at one item."""

    store: Store
    """The campaign's, for checkpoints and metrics; see `layout`."""
    index: int
    """The item's position in the dataset."""

    def report(self, doing: str, *, checkpoint: bool = False) -> None:
        """Show that work goes on; silence for `Policy.stall_s` is a stall.

        Args:
            doing: for people, in a few words: step, loss.
            checkpoint: a new one is whole in the store, so that an end from now on has cost only what came after it.
        """

    @property
    def is_stopping(self) -> bool:
        """The GPU worker has to leave: write a checkpoint, and return None. It has a few seconds."""


class LongWorkload(BaseWorkload):
    """Items that take minutes to hours: each is a chunk of its own, with checkpoints and units of progress of its own.

    The GPU worker holds one at a time and leaves it all GPUs of its container (a gang). Whoever leases the item next
    goes on from the newest checkpoint; what checkpoints are made of is the workload's business alone.
    """

    @abstractmethod
    def work(self, loaded: Any, session: Session) -> Sequence[Row] | ItemError | None:
        """The rows of one item, its error, or None if it was left at a checkpoint because the GPU worker has to leave.

        Raises:
            WorkDiedError: processes that it had started died. The ledger decides whether the item is to blame.
        """
