"""The leasing thread: it keeps the compute process supplied with chunks, and reports when nothing is left to do."""

import threading
import time
from collections import deque
from collections.abc import Callable

from gpu_jobs.jobs.failures import Failure
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.open_chunks import Survey
from gpu_jobs.ledger.ranges import Chunk
from gpu_jobs.worker.in_flight import InFlightChunk, InFlightChunks
from gpu_jobs.worker.leasing import LeaseFinder

_LEAD_S = 2.0
"""Chunks for this many seconds of work are leased ahead."""
_MAX_LEAD = 64
_STALE_SWEEP_S = 2.0
"""A sweep that has waited longer than this for room stops, because its listing is out of date."""
_POLL_S = (0.2, 2.0)
"""The shortest and the longest pause between two sweeps."""
_TICK_S = 0.5
_LAST_LEASE_S = 2.0
"""How long `stop` waits for the leasing thread."""


class Leaser:
    """Leases about two seconds of work ahead, but at least the current chunk and the next one."""

    def __init__(
        self,
        ledger: Ledger,
        survey: Survey,
        finder: LeaseFinder,
        worker_id: str,
        *,
        in_flight: InFlightChunks,
        wake: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._survey = survey
        self._finder = finder
        self._worker_id = worker_id
        self._in_flight = in_flight
        self._wake = wake
        self._stopped = threading.Event()
        self._room = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._chunk_s = _LEAD_S
        self._asked: set[str] = set()
        self.linger_s = 5.0
        """Seconds to stay without anything to lease while chunks are unsettled; about a cold start, because another GPU
        worker would have to start if these chunks became free. The leaser stays longer while a lease is dying."""
        self.most_ahead = _MAX_LEAD
        """The maximum number of chunks to hold that are not computed; 1 for long items, which others could begin."""
        self.ready: deque[InFlightChunk] = deque()
        """Chunks that are leased and not yet assigned to the compute process."""
        self.over = ""
        """Why no more chunks will be leased; "" while more may be."""
        self.failure: Failure | None = None

    def start_once(self) -> None:
        if not self._thread.ident:
            self._thread.start()

    def stop(self) -> None:
        """Lease no more. Waits for the current lease, but not long, because the store may not answer."""
        self._stopped.set()
        self._room.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_LEASE_S)

    def has_room(self, chunk_s: float) -> None:
        """Lease another chunk, because one was finished in `chunk_s` seconds."""
        self._chunk_s += 0.2 * (chunk_s - self._chunk_s)
        self._room.set()

    def _run(self) -> None:
        try:
            self._lease_on()
        except Exception as error:  # noqa: BLE001 - the supervisor reads it and ends
            self.over, self.failure = f"leasing failed: {type(error).__name__}: {error}", Failure.UNKNOWN
        self._wake()

    def _lease_on(self) -> None:
        idle_since, poll_s = time.monotonic(), _POLL_S[0]
        while not self._stopped.is_set():
            found = self._sweep()
            if found or self._in_flight.chunks():
                idle_since = time.monotonic()
            elif self._survey.items_left == 0:
                self.over = "nothing is left to do"
                return
            elif time.monotonic() - idle_since > self.linger_s and not self._finder.is_lease_dying:
                self.over = "nothing is left to lease"
                return
            else:
                self._ask()
            poll_s = _POLL_S[0] if found else min(2 * poll_s, _POLL_S[1])
            self._stopped.wait(poll_s)

    def _sweep(self) -> bool:
        """Lease until nothing more is found; return True if anything was found."""
        found = False
        if not self._wait_for_room():
            return True
        for leased in self._finder.sweep():
            found = True
            held = InFlightChunk.of(leased)
            self._in_flight.add(held)
            self.ready.append(held)
            self._wake()
            began = time.monotonic()
            if not self._wait_for_room() or time.monotonic() - began > _STALE_SWEEP_S:
                break  # the listing of this sweep is out of date
        return found

    def _wait_for_room(self) -> bool:
        """Return False when stopped."""
        lead = min(self.most_ahead, max(2, round(_LEAD_S / max(self._chunk_s, 1e-6))))
        while not self._stopped.is_set() and self._in_flight.num_uncomputed >= lead:
            self._room.wait(_TICK_S)
            self._room.clear()
        return not self._stopped.is_set()

    def _ask(self) -> None:
        """Ask the GPU worker that holds most items to give some of them, once per chunk."""
        chunk_id = self._finder.busiest()
        if chunk_id is not None and chunk_id not in self._asked:
            self._asked.add(chunk_id)
            self._ledger.want(Chunk.parse(chunk_id), self._worker_id)
