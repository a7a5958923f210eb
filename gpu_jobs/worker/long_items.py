"""The compute process of a long workload: it works on one item after another, without a time limit."""

import time
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection

from gpu_jobs.errors import FanfoldError, ItemError
from gpu_jobs.ledger import rows
from gpu_jobs.ledger.items import ItemsReader
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.store import Store
from gpu_jobs.worker.messages import Assign, Done, ItemProgress, Learned, Stop
from gpu_jobs.worker.outcomes import describe, item_frame, learned_by
from gpu_jobs.workloads.base import Item, LongWorkload, Row


class LongItems:
    """Works on long items. It reads the supervisor's commands whenever the workload asks whether to stop."""

    def __init__(self, pipe: Connection, workload: LongWorkload, items: ItemsReader, store: Store) -> None:
        self._pipe = pipe
        self._workload = workload
        self._items = items
        self._store = store
        self._schema = rows.schema(workload.columns)
        self._queue: deque[Assign] = deque()
        self._reported: Learned | None = None
        self._is_stopping = False

    def run(self) -> None:
        """Work until a `Stop` arrives, or until the supervisor closes the pipe (EOFError)."""
        while not self.is_stopping():
            self.report_learned()
            if self._queue:
                self._work_on(self._queue.popleft())
            else:
                self._pipe.poll(None)

    def is_stopping(self) -> bool:
        """Handle all commands that have arrived; return whether one was `Stop`."""
        while self._pipe.poll():
            match self._pipe.recv():
                case Assign() as assign:
                    self._queue.append(assign)
                case Stop():
                    self._is_stopping = True
        return self._is_stopping

    def report_learned(self) -> None:
        learned = learned_by(self._workload)
        if learned != self._reported:
            self._pipe.send(learned)
            self._reported = learned

    def _work_on(self, assign: Assign) -> None:
        for index, item in enumerate(self._items.read(assign.todo), start=assign.todo.start):
            began = time.monotonic()
            outcome = self._outcome(item, _Session(self, self._pipe, self._store, assign.token, index))
            if outcome is None:
                return
            frame, is_failed = item_frame(self._schema, index, item["item"], outcome)
            busy_s = time.monotonic() - began
            body = rows.encode(frame)
            self._pipe.send(Done(assign.token, Chunk(index, index + 1), body, int(is_failed), busy_s, busy_s))

    def _outcome(self, item: Item, session: "_Session") -> Sequence[Row] | ItemError | None:
        try:
            return self._workload.work(self._workload.load(item), session)
        except ItemError as error:
            return error
        except (FanfoldError, ConnectionError, TimeoutError, EOFError):
            raise
        except Exception as error:  # noqa: BLE001 - a user's code may raise anything
            return ItemError(describe(error))


class _Session:
    """Implements `Session`."""

    def __init__(self, owner: LongItems, pipe: Connection, store: Store, token: int, index: int) -> None:
        self.store = store
        self.index = index
        self._owner = owner
        self._pipe = pipe
        self._token = token

    def report(self, doing: str, *, checkpoint: bool = False) -> None:
        self._owner.report_learned()
        self._pipe.send(ItemProgress(self._token, doing, checkpoint))

    @property
    def is_stopping(self) -> bool:
        return self._owner.is_stopping()
