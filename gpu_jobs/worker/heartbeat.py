"""The heartbeat thread: it writes heartbeats to the store, and checks what the campaign wants of this GPU worker."""

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
    """Measures the items per second over the last minute."""

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


class HeartbeatThread:
    """Writes a heartbeat at regular intervals until `stop`.

    Each time it also reads the journal and, while this GPU worker holds leases, which chunks other GPU workers want.
    """

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        policy: Policy,
        *,
        snapshot: Callable[[], Heartbeat | None],
        end: Callable[[str], None],
        note_wanted: Callable[[set[str]], None],
        order: Order | None,
    ) -> None:
        """Create the thread; `start` starts it.

        `snapshot` returns the heartbeat to write, or None if the supervisor is stuck and must not look alive. `end`
        gets the reason when this GPU worker must end, `note_wanted` the ids of all wanted chunks, whoever holds them.
        """
        self._ledger = ledger
        self._journal = journal
        self._policy = policy
        self._snapshot = snapshot
        self._end = end
        self._note_wanted = note_wanted
        self._order = order
        self.clock = StoreClock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Write one heartbeat at once, which sets the clock, then continue in a thread."""
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
            self._note_wanted(self._ledger.wanted())

    def check_journal(self) -> None:
        """End this GPU worker if its campaign or its order is over."""
        now = datetime.fromtimestamp(self.clock.now(), UTC)
        order = self._order.name if self._order else None
        if must_end := reason_to_end(self._journal.read(), order, now):
            self._end(must_end.words)

    def _run(self) -> None:
        while not self._stopped.wait(self._policy.heartbeat_s):
            try:
                self.beat()
                self.check_journal()
            except Exception as error:  # noqa: BLE001 - without heartbeats our leases expire
                self._end(f"cannot write heartbeats: {error}")
                return
