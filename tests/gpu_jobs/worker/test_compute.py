"""The compute process's windows: which items it infers together."""

import threading
from contextlib import suppress
from multiprocessing import Pipe
from typing import ClassVar

import polars as pl
import pytest

from gpu_jobs.errors import ItemError, WorkDiedError, WorkloadImportError
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.worker.compute import _Pipeline
from gpu_jobs.worker.messages import Assign, Done
from gpu_jobs.workloads.base import Params, Workload


class Noted(Workload):
    columns: ClassVar = {"text": pl.String}
    micro_batch = 3
    window_weight = 10

    def __init__(self):
        super().__init__(Params())
        self.windows = []

    def infer(self, inputs):
        self.windows.append([item["weight"] for item in inputs])
        return [[{"text": item["item"]}] for item in inputs]


class Items:
    def __init__(self, weights):
        self._weights = weights

    def read(self, wanted):
        for index in range(wanted.start, wanted.stop):
            yield {"item": f"item-{index}", "weight": self._weights[index]}


@pytest.mark.parametrize(
    ("weights", "windows"),
    [
        ([1, 1, 1, 1], [[1, 1, 1], [1]]),
        ([6, 4, 5, 6], [[6, 4], [5], [6]]),
        ([50, 60, 1], [[50], [60], [1]]),
    ],
)
def test_a_window_ends_at_its_count_or_its_weight(weights, windows):
    """One that is too heavy by itself is a window of its own."""
    ours, theirs = Pipe()
    workload = Noted()
    ours.send(Assign(0, Chunk(0, len(weights))))
    thread = threading.Thread(target=run, args=(_Pipeline(theirs, workload, Items(weights)),))
    thread.start()
    num_done = 0
    while num_done < len(weights):
        message = ours.recv()
        num_done += message.range.num_items if isinstance(message, Done) else 0
    ours.close()
    thread.join()

    assert workload.windows == windows


class Broken(Noted):
    """Its device breaks at once, and stays so."""

    def infer(self, inputs):
        raise RuntimeError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize("num_items", [1, 4])
def test_a_broken_device_is_a_crash_and_no_fault_of_the_items(num_items):
    """All others would fail in this process too, whatever they are."""
    pipeline = _Pipeline(Pipe()[1], Broken(), Items([]))

    with pytest.raises(WorkDiedError, match=r"the GPU no longer answers .*device-side assert"):
        pipeline._infer([{"item": f"item-{number}"} for number in range(num_items)])


class Partly(Noted):
    """Its `load` finds an input of which only a part can be used."""

    def load(self, item):
        raise ItemError("the end is missing", rows=[{"text": "the beginning"}])


def test_the_rows_that_an_error_brings_are_kept():
    """Raised from `load` or returned from `infer`."""
    pipeline = _Pipeline(Pipe()[1], Partly(), Items([1]))
    pipeline._stops[0] = 1
    pending = next(pipeline._pend(0, Chunk(0, 1)))

    ((frame, is_failed),) = pipeline._outcomes([pending])

    assert is_failed
    assert frame.select("outcome", "error", "text").rows() == [
        ("row", None, "the beginning"),
        ("error", "the end is missing", None),
    ]


class Unfit(Noted):
    """The image lacks what its `load` needs."""

    def load(self, item):
        raise WorkloadImportError("no decoder here")


def test_an_image_that_cannot_load_items_is_no_fault_of_the_items():
    """The GPU worker is unfit; as error rows, all items would be lost one by one."""
    ours, theirs = Pipe()
    ours.send(Assign(0, Chunk(0, 2)))

    with pytest.raises(WorkloadImportError, match="no decoder here"):
        _Pipeline(theirs, Unfit(), Items([1, 1])).run()


def run(pipeline):
    with suppress(EOFError, ConnectionResetError):
        pipeline.run()
