"""Interface between Fanfold and a workload, the code that turns items into output rows."""

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
"""One row of the items table: `item` (unique id), `weight` (cost, in any one unit), `fingerprint` (identifies the
input's content at the split; "" if there is none), and all other values that `items` adds for `load`."""
Row = Mapping[str, Any]
"""One output row: values by the names in `BaseWorkload.columns`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results of a campaign, given to `export` to write further files from them."""

    campaign: str
    """The campaign's address in the store."""
    dataset: str
    rows: pl.LazyFrame
    """All output rows, in item order, with `item_index` and `item`."""
    without_rows: Callable[[], Iterator[tuple[Item, str | None]]]
    """Yields the items without rows, in order, each with its error; None means that the item is still open."""
    is_complete: bool
    has_expired: bool
    """The campaign's deadline has passed."""
    created_at: datetime


class Params(BaseModel):
    """Base of a workload's parameters, which a campaign sets and which determine the rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BaseWorkload(ABC):
    """Common base of `Workload` and `LongWorkload`.

    `items`, `gpu_memory_gib`, `finish` and `export` run where the campaign is planned and collected, without a GPU, so
    import libraries such as torch in `setup`, not at module level. All other methods run in a GPU worker's compute
    process.
    """

    params_model: ClassVar[type[Params]] = Params
    columns: ClassVar[Mapping[str, pl.DataType | type[pl.DataType]]]
    """Output columns and their types; `item_index` (position in the dataset) and `item` (id) are added."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Lower-case endings of the files in a folder or prefix that are inputs; empty means all files."""
    needs_files: ClassVar[bool] = False
    """Whether every row of a table must name a file."""
    source_column: ClassVar[str] = ""
    """Key of an item that holds its source's id, where `items` reads the sources: with `only_new` a source all of whose
    items are committed is then not read again."""
    batch_size: BatchSize | None = None
    """The batch size, which adapts to the device and is shared between GPU workers; `setup` may set it."""
    num_previewed: int = 0
    """Number of first items that `preview` answers; 0 means no preview."""
    num_gpus: int = 1
    """Number of GPUs that one GPU worker needs, if it runs on GPUs."""
    batch_items: ClassVar[int] = 1
    """Items processed together even on the smallest device; chunks with fewer items are slower."""

    def __init__(self, params: Any) -> None:
        """Create a workload; `params` is an instance of `params_model`."""
        self.params = params
        self.facts: dict[str, str] = {}
        """Facts on which rows may depend, such as the device and the model; published in the manifest."""

    def items(self, sources: Iterable[Source]) -> Iterator[Item]:
        """Turn sources into items, always in the same order; by default each source is one item of weight 1."""
        for source in sources:
            yield {**source.columns, "item": source.id, "weight": 1.0, "fingerprint": source.fingerprint}

    def gpu_memory_gib(self) -> float:
        """Minimum GPU memory of one GPU worker, summed over its GPUs; 0 if any is enough or it is unknown here."""
        return 0.0

    def setup(self, device: str) -> None:
        """Load the model onto `device` ("cuda:0" or "cpu"); called once, before the first lease."""

    def preview(self, items: Sequence[Item], device: str) -> Sequence[Row]:
        """Return quick answers to the first items, each with `item`; runs in another process than `setup`."""
        del items, device
        return ()

    def load(self, item: Item) -> Any:
        """Read and decode one item on the CPU, after `setup`; raise `ItemError` if it cannot be used."""
        return item

    def teardown(self) -> None:
        """Release what `setup` acquired."""

    def finish(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Post-process all rows, in item order, when outputs are published; must be lazy and cheap to stream.

        All items have been audited before, so rows may be joined, changed or removed here.
        """
        return rows

    def export(self, results: Results, folder: Path) -> Iterable[Path]:
        """Write further result files into `folder`; return the files to publish beside the tables."""
        del results, folder
        return ()


class Workload(BaseWorkload):
    """Turns items into rows: `load` runs ahead in threads, `infer` in the one thread that owns the device."""

    micro_batch: int = 1
    """Maximum number of loaded items in one call of `infer`, which finish together; `setup` may set it."""
    window_weight: float = math.inf
    """Maximum total weight of these items, except for a single one; `setup` may set it. Keep it far below what takes
    `stall_s` seconds."""
    load_threads: int = 2

    @abstractmethod
    def infer(self, inputs: Sequence[Any]) -> Sequence[Sequence[Row] | ItemError]:
        """Compute the rows of each input, in order; an input may give no rows, or an `ItemError` instead."""


class Session(Protocol):
    """What a long workload can use of its GPU worker while it works on one item."""

    store: Store
    """The campaign's store, for checkpoints and metrics; `ledger.keys` has their keys."""
    index: int
    """The item's position in the dataset."""

    def report(self, doing: str, *, checkpoint: bool = False) -> None:
        """Report progress; without a report for `Policy.stall_s` seconds, the item counts as stalled.

        Args:
            doing: current progress for people, in a few words, such as step and loss.
            checkpoint: True if a new checkpoint is complete in the store, so that only later work can be lost.
        """

    @property
    def is_stopping(self) -> bool:
        """True if the GPU worker must stop within seconds: write a checkpoint, and return None from `work`."""


class LongWorkload(BaseWorkload):
    """Processes items that take minutes to hours; each item is its own chunk, with its own checkpoints and progress.

    A GPU worker processes one item at a time, on all GPUs of its container. The next GPU worker that leases the item
    resumes from the newest checkpoint; the workload alone decides what a checkpoint contains.
    """

    @abstractmethod
    def work(self, loaded: Any, session: Session) -> Sequence[Row] | ItemError | None:
        """Return the rows of one item, its error, or None if it stopped at a checkpoint as `is_stopping` asked.

        Raises:
            WorkDiedError: processes that it started have died; the ledger decides whether the item is to blame.
        """
