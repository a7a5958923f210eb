"""A workload that does to its GPU worker what the item says: for tests of what Fanfold survives."""

import ctypes
import os
import signal
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import polars as pl

from gpu_jobs.errors import ItemError, ModelTooLargeError, WorkloadImportError
from gpu_jobs.workloads.base import Item, Params, Row, Workload
from gpu_jobs.workloads.noop import value_of

WORDS = "no image found: quota of model credits exceeded, timed out, evicted"
"""Of every exception of a setup: nobody may believe them."""
SETUPS = {
    "value": ValueError(WORDS),
    "memory": MemoryError(WORDS),
    "gpu": RuntimeError("CUDA error: out of memory"),
    "words": ValueError(f"{WORDS}, out of memory"),
    "large": ModelTooLargeError(WORDS),
    "import": WorkloadImportError(WORDS),
}


class HostileParams(Params):
    setup: Literal["", "exit", "value", "memory", "gpu", "words", "large", "import"] = ""
    item_s: float = 0.0
    batch: int = 1
    fits: int = 1000
    """Items of a batch from which on memory runs out."""


class Hostile(Workload):
    """Items named `segfault-…`, `raise-…`, `refuse-…`, `bad-row-…`, `batch-…`, `empty-…`, `hang-…`… do just that."""

    params_model: ClassVar[type[Params]] = HostileParams
    columns: ClassVar[dict[str, Any]] = {"value": pl.Int64}

    def setup(self, device: str) -> None:
        self.micro_batch = self.params.batch
        if self.params.setup == "exit":
            print(WORDS, flush=True)
            os._exit(1)
        if self.params.setup:
            raise SETUPS[self.params.setup]

    def load(self, item: Item) -> str:
        name = item["item"]
        if name.startswith("segfault"):
            ctypes.string_at(0)
        if name.startswith("refuse"):
            raise ItemError("this item is not to be used")
        return name

    def infer(self, inputs: Sequence[str]) -> Sequence[Sequence[Row] | ItemError]:
        time.sleep(self.params.item_s * len(inputs))
        if len(inputs) > 1 and any(name.startswith("batch") for name in inputs):
            raise RuntimeError("this item spoils its batch")
        if len(inputs) > self.params.fits:
            raise MemoryError("out of memory")
        return [self._rows(name) for name in inputs]

    def _rows(self, name: str) -> Sequence[Row] | ItemError:
        if name.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("hang"):
            time.sleep(3600)
        if name.startswith("lose-model"):
            raise WorkloadImportError("the model cannot be loaded again")
        if name.startswith("time-out"):
            raise TimeoutError(WORDS)
        if name.startswith("raise"):
            raise ValueError("this item makes infer raise")
        if name.startswith("empty"):
            return []
        return [{"value": "not a number" if name.startswith("bad-row") else value_of(name)}]
