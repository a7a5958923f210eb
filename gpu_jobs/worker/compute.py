"""The compute process: it uses the device, turns assigned items into rows, and knows nothing about leases.

`load` runs in threads, some items ahead, across chunk boundaries; `infer` runs in the main thread on micro-batches.
The process writes no rows to the store; it sends finished rows to the supervisor at once, so its death costs
at most one micro-batch.
"""

import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from multiprocessing.connection import Connection
from typing import Any

import polars as pl

from gpu_jobs.errors import (
    FanfoldError,
    ItemError,
    ModelTooLargeError,
    StoreUnavailableError,
    WorkDiedError,
    WorkloadImportError,
)
from gpu_jobs.jobs.failures import Cause
from gpu_jobs.ledger import rows
from gpu_jobs.ledger.items import ItemsReader
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.ledger.records import Plan
from gpu_jobs.store import open_store
from gpu_jobs.telemetry.batch_sizes import recall
from gpu_jobs.worker.long_items import LongItems
from gpu_jobs.worker.messages import Assign, Cut, Done, Failed, Learned, Ready
from gpu_jobs.worker.outcomes import describe, item_frame, learned_by
from gpu_jobs.worker.preview import die_with_parent, start_preview
from gpu_jobs.workloads import load_workload
from gpu_jobs.workloads.base import BaseWorkload, Item, LongWorkload, Workload
from gpu_jobs.workloads.batch_size import is_out_of_memory

_TRANSIENT = (StoreUnavailableError, ConnectionError, TimeoutError)


def run(pipe: Connection, campaign_uri: str, plan: Plan, device: str, learned: Mapping[str, int]) -> None:
    """Entry point of the process. `learned` maps a device to the batch size that other GPU workers found for it."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)  # the supervisor alone decides when we stop
    threading.Thread(target=die_with_parent, daemon=True).start()
    began = time.monotonic()
    try:
        workload = load_workload(plan.workload, plan.params)
        start_preview(workload, campaign_uri, plan, device)
        workload.setup(device)
    except WorkloadImportError as error:
        pipe.send(_unfit(error))
        return
    except Exception as error:  # noqa: BLE001 - a user's setup may raise anything
        pipe.send(Failed(Cause.MEMORY if is_out_of_memory(error) else Cause.MODEL, describe(error)))
        return
    _start_at_known_batch_size(workload, campaign_uri, learned)
    pipe.send(Ready(time.monotonic() - began, device, isinstance(workload, LongWorkload)))
    store = open_store(campaign_uri)
    items = ItemsReader(store, plan)
    try:
        if isinstance(workload, LongWorkload):
            LongItems(pipe, workload, items, store).run()
        elif isinstance(workload, Workload):
            _Pipeline(pipe, workload, items).run()
        workload.teardown()
    except EOFError:
        pass
    except WorkloadImportError as error:
        pipe.send(_unfit(error))
    except WorkDiedError as error:
        pipe.send(Failed(Cause.CRASHED, str(error)))
    except (FanfoldError, *_TRANSIENT) as error:
        pipe.send(Failed(Cause.TRANSIENT, describe(error)))


def _unfit(error: WorkloadImportError) -> Failed:
    return Failed(Cause.MEMORY if isinstance(error, ModelTooLargeError) else Cause.IMAGE, str(error))


def _start_at_known_batch_size(workload: BaseWorkload, campaign_uri: str, learned: Mapping[str, int]) -> None:
    """Start with the batch size that others found in this campaign, else with that of an earlier campaign."""
    if workload.batch_size is None:
        return
    size = learned.get(workload.facts.get("device", "")) or recall(campaign_uri, workload.facts)
    if size:
        workload.batch_size.start_at(size)


@dataclass(slots=True)
class _Pending:
    """An item that waits for inference."""

    token: int
    index: int
    item: Item
    loaded: "Future[Any] | None"


class _Pipeline:
    def __init__(self, pipe: Connection, workload: Workload, items: ItemsReader) -> None:
        self._pipe = pipe
        self._workload = workload
        self._items = items
        self._schema = rows.schema(workload.columns)
        self._micro_batch = workload.micro_batch
        self._reported: Learned | None = None
        self._queue: deque[Iterator[_Pending]] = deque()
        self._pending: deque[_Pending] = deque()
        self._stops: dict[int, int] = {}
        loads = type(workload).load is not Workload.load
        self._loaders = ThreadPoolExecutor(workload.load_threads, "load") if loads else None

    def run(self) -> None:
        """Work until the supervisor closes the pipe (EOFError)."""
        while True:
            self._report_learned()
            self._read_commands()
            self._prefetch()
            if self._pending:
                self._infer_next()

    def _report_learned(self) -> None:
        learned = learned_by(self._workload)
        if learned != self._reported:
            self._pipe.send(learned)
            self._reported = learned

    def _read_commands(self) -> None:
        """Handle all commands that have arrived; wait for one if there is nothing else to do."""
        while self._pipe.poll(None if not (self._pending or self._queue) else 0):
            match self._pipe.recv():
                case Assign(token, todo):
                    self._stops[token] = todo.stop
                    self._queue.append(self._pend(token, todo))
                case Cut(token, stop):
                    self._stops[token] = stop
                    self._pending = deque(each for each in self._pending if each.index < self._stops[each.token])

    def _pend(self, token: int, todo: Chunk) -> Iterator[_Pending]:
        for offset, item in enumerate(self._items.read(todo)):
            if todo.start + offset >= self._stops[token]:
                return
            future = self._loaders.submit(self._workload.load, item) if self._loaders else None
            yield _Pending(token, todo.start + offset, item, future)

    def _prefetch(self) -> None:
        depth = 2 * self._micro_batch + self._workload.load_threads
        while len(self._pending) < depth and self._queue:
            pending = next(self._queue[0], None)
            if pending is None:
                self._queue.popleft()
            else:
                self._pending.append(pending)

    def _infer_next(self) -> None:
        batch = self._next_window()
        began = time.monotonic()
        outcomes = self._outcomes(batch)
        busy_s = time.monotonic() - began
        together = zip(batch, outcomes, strict=True)
        for token, group in groupby(together, key=lambda pair: pair[0].token):
            found = list(group)
            first, last = found[0][0].index, found[-1][0].index
            frame = pl.concat([frame for _, (frame, _) in found]) if len(found) > 1 else found[0][1][0]
            num_failed = sum(failed for _, (_, failed) in found)
            share = busy_s * len(found) / len(batch)
            self._pipe.send(Done(token, Chunk(first, last + 1), rows.encode(frame), num_failed, share, busy_s))

    def _next_window(self) -> list[_Pending]:
        window: list[_Pending] = []
        weight = 0.0
        while self._pending and len(window) < self._micro_batch:
            weight += self._pending[0].item["weight"]
            if window and weight > self._workload.window_weight:
                break
            window.append(self._pending.popleft())
        return window

    def _outcomes(self, batch: Sequence[_Pending]) -> list[tuple[pl.DataFrame, bool]]:
        """Return the rows of each item, and whether the item failed."""
        loaded: list[Any] = [self._load(pending) for pending in batch]
        good = [each for each in loaded if not isinstance(each, ItemError)]
        results = iter(self._infer(good) if good else ())
        outcomes = []
        for pending, each in zip(batch, loaded, strict=True):
            outcome = each if isinstance(each, ItemError) else next(results)
            outcomes.append(self._frame(pending, outcome))
        return outcomes

    def _frame(self, pending: _Pending, outcome: Any) -> tuple[pl.DataFrame, bool]:
        return item_frame(self._schema, pending.index, pending.item["item"], outcome)

    def _load(self, pending: _Pending) -> Any:
        """Return the loaded input, or an `ItemError` if loading failed."""
        try:
            return pending.item if pending.loaded is None else pending.loaded.result()
        except (WorkloadImportError, *_TRANSIENT):
            raise
        except Exception as error:  # noqa: BLE001 - a bad item may raise anything
            return ItemError(describe(error), rows=error.rows if isinstance(error, ItemError) else ())

    def _infer(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Return the outcomes of one micro-batch.

        A batch that fails as a whole is tried again in halves, down to single items; a single item is tried twice and
        then becomes an error.
        """
        try:
            outcomes = self._workload.infer(inputs)
            if len(outcomes) != len(inputs):
                raise ItemError(f"infer returned {len(outcomes)} outcomes for {len(inputs)} items")  # noqa: TRY301
        except (WorkloadImportError, *_TRANSIENT):
            raise
        except Exception as error:  # noqa: BLE001 - a user's infer may raise anything
            _give_up_if_broken(error)
            if len(inputs) > 1:
                if is_out_of_memory(error):
                    self._micro_batch = max(1, len(inputs) // 2)
                middle = len(inputs) // 2
                return [*self._infer(inputs[:middle]), *self._infer(inputs[middle:])]
            return [self._once_more(inputs[0])]
        return outcomes

    def _once_more(self, single: Any) -> Any:
        try:
            return self._workload.infer([single])[0]
        except (WorkloadImportError, *_TRANSIENT):
            raise
        except Exception as error:  # noqa: BLE001 - a user's infer may raise anything
            _give_up_if_broken(error)
            return ItemError(describe(error))


def _give_up_if_broken(error: Exception) -> None:
    """Raise after an error of CUDA itself: every later call of this process would fail, whatever the item."""
    if "CUDA error" in str(error) and not is_out_of_memory(error):
        raise WorkDiedError(f"the GPU no longer answers this process: {describe(error)}") from error
