"""Whether the journal allows a GPU worker to run: one rule for GPU workers and the reaper. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gpu_jobs.ledger.journal import JournalState


class EndCause(StrEnum):
    """Why a GPU worker may not run."""

    NOT_ORDERED = "not ordered"
    NOT_OPENED = "not opened"
    ENDED = "ended"
    EXPIRED = "expired"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class MustEnd:
    """A GPU worker may not run, and why."""

    cause: EndCause
    words: str
    """The cause in words for people."""


def reason_to_end(state: JournalState, order: str | None, now: datetime, *, grace_s: float = 0.0) -> MustEnd | None:
    """Why no GPU worker of an order may run; None if GPU workers may.

    Args:
        state: the campaign's journal; it has no entries if there is no such campaign.
        order: name of the GPU job; None if the GPU worker was started by hand, without an order.
        now: the time by the caller's clock.
        grace_s: how long GPU workers may take to end by themselves after the order's expiry or the campaign's close.
    """
    ordered = state.orders.get(order) if order else None
    if order and ordered is None:
        return MustEnd(cause=EndCause.NOT_ORDERED, words="no campaign under this root has ordered it")
    if state.opened is None:
        return MustEnd(cause=EndCause.NOT_OPENED, words="its campaign was never opened")
    if order and (ended := state.ended.get(order)):
        return MustEnd(cause=EndCause.ENDED, words=f"its order has ended: {ended.reason}")
    if ordered and (now - ordered.order.expires_at).total_seconds() >= grace_s:
        words = f"its order expired at {ordered.order.expires_at:%Y-%m-%d %H:%M} UTC"
        return MustEnd(cause=EndCause.EXPIRED, words=words)
    closed = state.closed
    # Clocks differ: a close that seems to lie in the future is taken as now.
    if closed and max(0.0, (now - closed.at).total_seconds()) >= grace_s:
        return MustEnd(cause=EndCause.CLOSED, words=f"its campaign is closed: {closed.reason}")
    return None
