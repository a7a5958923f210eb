"""Sign of life: what the supervisor is doing, put into the store, and what the campaign wants of us in return."""

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from gpu_jobs.jobs.orders import Order, Policy
from gpu_jobs.ledger.journal import Journal
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.records import Heartbeat
from gpu_jobs.ledger.validity import reason_to_end
from gpu_jobs.worker.leasing import StoreClock

_RATE_WINDOW_S = 60.0


class Rate:
    """Items per second over the last minute."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def read(self, items_done: int) -> float:
        now = time.monotonic()
        self._marks.append((now, items_done))
        while now - self._marks[0][0] > _RATE_WINDOW_S and len(self._marks) > 2:  # noqa: PLR2004 - two ends
            self._marks.popleft()
        began, before = self._marks[0]
        elapsed = now - began
        return (items_done - before) / elapsed if elapsed > 0 else 0.0


class Pulse:
    """Beats until `stop`; each beat also reads the journal and, while we hold leases, who wants them."""

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        policy: Policy,
        *,
        snapshot: Callable[[], Heartbeat | None],
        end: Callable[[str], None],
        wanted: Callable[[set[str]], None],
        order: Order | None,
    ) -> None:
        """`snapshot` returns None when the supervisor itself is stuck: then we must not claim to live."""
        self._ledger = ledger
        self._journal = journal
        self._policy = policy
        self._snapshot = snapshot
        self._end = end
        self._wanted = wanted
        self._order = order
        self.clock = StoreClock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Beat once, so that the clock is set, then go on in a thread."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def beat(self) -> None:
        heartbeat = self._snapshot()
        if heartbeat is None:
            return
        self.clock.set(self._ledger.beat(heartbeat))
        if heartbeat.leases:
            self._wanted(self._ledger.wanted())

    def check_journal(self) -> None:
        """End if the campaign or our order is over."""
        now = datetime.fromtimestamp(self.clock.now(), UTC)
        order = self._order.name if self._order else None
        if must_end := reason_to_end(self._journal.read(), order, now):
            self._end(must_end.words)

    def _run(self) -> None:
        while not self._stopped.wait(self._policy.heartbeat_s):
            try:
                self.beat()
                self.check_journal()
            except Exception as error:  # noqa: BLE001 - without a heartbeat our leases are void
                self._end(f"no heartbeat possible: {error}")
                return
