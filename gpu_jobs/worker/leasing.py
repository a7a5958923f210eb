"""How a GPU worker finds chunks without a coordinator.

It lists a window of the dataset, leases a chunk near a random place in it, checks that nobody has settled that chunk,
and continues after the parts that earlier attempts have written.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gpu_jobs.jobs.failures import AttemptEnd, Cause, Verdict, judge
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.ledger.heartbeats import HeartbeatReader, ListedWorker
from gpu_jobs.ledger.ledger import Ledger, OpenChunk
from gpu_jobs.ledger.open_chunks import Lease, Survey, Window
from gpu_jobs.ledger.ranges import Chunk, halve, subtract
from gpu_jobs.ledger.records import Attempt, Committed, Open, Quarantined, Settlement, Tile, tiles_left

_LOST_BEFORE_LISTING = 3
"""After this many lost races in a row, the window is listed again."""
_LATE = 2.0
"""Number of heartbeat intervals. A holder that is silent for longer may have died."""


@dataclass(slots=True, kw_only=True)
class Leased:
    """An attempt that this GPU worker holds, with the parts of earlier attempts and the pieces that are left to do."""

    attempt: Attempt
    crashes: int
    parts: list[Committed] = field(default_factory=list)
    left: list[Chunk] = field(default_factory=list)

    @property
    def chunk(self) -> Chunk:
        return self.attempt.chunk


class StoreClock:
    """Estimates the store's time from its stamp on our last heartbeat and the monotonic seconds since then."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset = -monotonic()

    def set(self, stamp: float) -> None:
        """Set the time; call this right after the write that got `stamp`.

        The clock may then be late by the duration of the store's reply, but it never runs ahead.
        """
        self._offset = stamp - self._monotonic()

    def now(self) -> float:
        return self._offset + self._monotonic()


class LeaseFinder:
    """Finds and leases chunks for one GPU worker, one after another."""

    def __init__(
        self, ledger: Ledger, survey: Survey, policy: Policy, worker_id: str, clock: Callable[[], float]
    ) -> None:
        self._ledger = ledger
        self._heartbeats = HeartbeatReader(ledger)
        self._survey = survey
        self._policy = policy
        self._worker_id = worker_id
        self._now = clock
        self._random = random.Random(worker_id)  # noqa: S311 - spreads GPU workers; no secret
        self._holders: dict[tuple[Chunk, int], str] = {}
        self._given: dict[Chunk, float] = {}
        self.is_lease_dying = False
        """Whether the last sweep saw a holder whose heartbeat was late, so that its chunks may soon be free."""

    def sweep(self) -> Iterator[Leased]:
        """Lease all that can be leased now, beginning at a random window; end when nothing more is found."""
        self.is_lease_dying = False
        windows = self._survey.windows
        first = self._random.randrange(len(windows))
        for window in (*windows[first:], *windows[:first]):
            if window.open:
                yield from self._sweep_window(window)

    def give(self, chunk: Chunk) -> None:
        """Do not lease this chunk until the lease timeout, so that the GPU worker that asked for it can take it."""
        self._given[chunk] = self._now()

    def busiest(self) -> str | None:
        """Return the chunk to ask for: the last one of the GPU worker that holds the most items."""
        now = self._now()
        held = [each for each in self._heartbeats.workers() if each.leases and self._is_fresh(each.stored_at, now)]
        others = [each for each in held if each.worker_id != self._worker_id]
        if not others:
            return None
        return max(others, key=lambda each: sum(Chunk.parse(lease).num_items for lease in each.leases)).leases[-1]

    def _sweep_window(self, window: Window) -> Iterator[Leased]:
        lost = _LOST_BEFORE_LISTING
        while lost >= _LOST_BEFORE_LISTING:  # others work here: list again, try another place in the window
            lost = 0
            self._survey.refresh(window)
            leases = self._survey.leases(window) if window.open else {}
            is_alive = self._alive_workers(window.open, leases)
            candidates = self._rotated(window.open)
            held: list[tuple[OpenChunk, Lease]] = []
            while candidates and lost < _LOST_BEFORE_LISTING:
                found = candidates.pop()
                last = leases.get(found.chunk)
                if last and not self._may_follow(found.chunk, last, is_alive):
                    held.append((found, last))
                    continue
                if self._is_given(found.chunk):
                    continue
                leased = self._lease(found, last)
                lost = lost + 1 if leased is None else 0
                if leased is not None:
                    yield leased
            if held and len(held) == len(window.open) and (hedge := self._hedge(held)):
                yield hedge

    def _hedge(self, held: list[tuple[OpenChunk, Lease]]) -> Leased | None:
        """Others hold all chunks that are left: begin a second attempt at one of them if the campaign wants a hedge."""
        wanted = self._ledger.hedged()
        for found, last in held:
            is_mine = self._holder(found.chunk, last.number) == self._worker_id
            if (found.chunk.id, last.number) in wanted and not is_mine and not last.ended:
                attempt = Attempt(chunk=found.chunk, number=last.number + 1, worker_id=self._worker_id, follows="hedge")
                if self._ledger.begin(attempt) and not self._ledger.is_settled(found.chunk):
                    return self._take_over(Leased(attempt=attempt, crashes=found.crashes))
        return None

    def _rotated(self, found: list[OpenChunk]) -> list[OpenChunk]:
        """Rotate to a random start and reverse, so that `pop` yields the chunks in order."""
        at = self._random.randrange(len(found) or 1)
        return [*reversed(found[:at]), *reversed(found[at:])]

    def _may_follow(self, chunk: Chunk, last: Lease, is_alive: Callable[[Chunk, Lease], bool]) -> bool:
        return last.number < self._policy.max_attempts and (last.ended or not is_alive(chunk, last))

    def _lease(self, found: OpenChunk, last: Lease | None) -> Leased | None:
        """Begin the next attempt at a chunk; return None if another GPU worker was faster or the chunk is settled."""
        number, follows = 1, ""
        if last is not None:
            number, follows = last.number + 1, Cause.LOST.value
            if last.ended:
                follows = self._ledger.ends(found.chunk, last.number)[-1].cause.value
        attempt = Attempt(chunk=found.chunk, number=number, worker_id=self._worker_id, follows=follows)
        if not self._ledger.begin(attempt) or self._ledger.is_settled(found.chunk):
            return None
        if last is None:
            return Leased(attempt=attempt, crashes=found.crashes, left=[found.chunk])
        return self._follow(Leased(attempt=attempt, crashes=found.crashes), last)

    def _follow(self, leased: Leased, last: Lease) -> Leased | None:
        """Continue after earlier attempts: keep their parts; halve or quarantine what killed too many GPU workers."""
        chunk = leased.chunk
        if not last.ended:
            self._ledger.end(
                chunk, last.number, AttemptEnd(cause=Cause.LOST, detail="the GPU worker's heartbeat is too old")
            )
        self._take_over(leased)
        ends = self._ledger.ends(chunk, last.number)
        items_left = sum(piece.num_items for piece in leased.left)
        verdict = judge(ends, inherited=leased.crashes, items_left=items_left, max_crashes=self._policy.max_crashes)
        if verdict is Verdict.WORK and items_left:
            return leased
        self._ledger.settle(
            Settlement(
                chunk=chunk,
                attempt=leased.attempt.number,
                worker_id=self._worker_id,
                tiles=_verdict_tiles(leased, verdict, ends, self._policy.max_crashes),
            )
        )
        return None

    def _take_over(self, leased: Leased) -> Leased:
        """Adopt the parts of earlier attempts, and leave only the rest to do."""
        leased.parts = self._ledger.adopt_parts(leased.chunk)
        leased.left = subtract(leased.chunk, (part.range for part in leased.parts))
        return leased

    def _alive_workers(self, found: list[OpenChunk], leases: dict[Chunk, Lease]) -> Callable[[Chunk, Lease], bool]:
        """Return a function that says whether the holder of a lease is alive, by one listing of the heartbeats.

        The function answers for the time of the listing, even if it is called later, because a sweep may take longer
        than a lease lasts.
        """
        now = self._now()
        workers: dict[str, ListedWorker] = {}
        if any(each.chunk in leases and not leases[each.chunk].ended for each in found):
            workers = {each.worker_id: each for each in self._heartbeats.workers()}

        def is_alive(chunk: Chunk, lease: Lease) -> bool:
            holder = workers.get(self._holder(chunk, lease.number))
            at = holder.stored_at if holder else lease.began_at
            self.is_lease_dying |= self._is_fresh(at, now) and now - at > _LATE * self._policy.heartbeat_s
            if holder is None:
                return self._is_fresh(at, now)
            names_it = chunk.id in holder.leases
            is_too_new_to_name = at < lease.began_at + 2 * self._policy.heartbeat_s
            return holder.status != "over" and self._is_fresh(at, now) and (names_it or is_too_new_to_name)

        return is_alive

    def _is_given(self, chunk: Chunk) -> bool:
        return chunk in self._given and self._is_fresh(self._given[chunk], self._now())

    def _is_fresh(self, stamp: float, now: float) -> bool:
        return now - stamp <= self._policy.lease_timeout_s

    def _holder(self, chunk: Chunk, number: int) -> str:
        key = (chunk, number)
        if key not in self._holders:
            self._holders[key] = self._ledger.attempt(chunk, number).worker_id
        return self._holders[key]


def _verdict_tiles(leased: Leased, verdict: Verdict, ends: list[AttemptEnd], max_crashes: int) -> tuple[Tile, ...]:
    if verdict is Verdict.WORK:  # the parts cover the whole chunk
        return tiles_left(leased.chunk, leased.parts, leased.crashes)
    tiles: list[Tile] = list(leased.parts)
    if verdict is Verdict.QUARANTINE:
        last = next((end for end in reversed(ends) if end.blames_items), AttemptEnd(cause=Cause.CRASHED))
        (alone,) = leased.left
        attempts = leased.attempt.number - 1 + leased.crashes
        tiles.append(Quarantined(range=alone, cause=last.cause.value, detail=last.detail, attempts=attempts))
    else:
        pieces = leased.left if len(leased.left) > 1 else halve(leased.left[0])
        tiles.extend(Open(range=piece, crashes=max_crashes - 1) for piece in pieces)
    return tuple(sorted(tiles, key=lambda tile: tile.range))
