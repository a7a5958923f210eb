"""End GPU jobs that nobody owns: those under a store root whose order is not open, or has expired.

It asks the platforms first and reads the journals second, so that a GPU job ordered in between is not mistaken for one
without an order. It touches only GPU jobs whose name begins with this root's hash, and reads only the journals of
campaigns that have such GPU jobs. A store that cannot be read is an error, never "nothing to do".
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from gpu_jobs.errors import StoreError
from gpu_jobs.jobs.costs import spent_usd
from gpu_jobs.jobs.names import order_prefix, root_prefix
from gpu_jobs.jobs.orders import Handle, Observation
from gpu_jobs.ledger.journal import Journal, JournalState, Ordered
from gpu_jobs.ledger.validity import reason_to_end
from gpu_jobs.platforms.base import Platform
from gpu_jobs.platforms.event_loop import Background
from gpu_jobs.store import campaign_names, open_store

_GRACE_S = 60.0
"""How long to wait after an order's expiry or a campaign's close: GPU workers need a moment to end by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A GPU job that nobody owns."""

    order: str
    platform: str
    campaign: str
    """Address of its campaign; "" if there is none under this root."""
    why: str
    usd: float | None
    """Its cost since it was ordered, at its offer's price; None if its order is not known."""
    has_ended: bool
    """True if it was confirmed to have ended; always False in a dry run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Living:
    """The GPU jobs under a store root that platforms list, and the journals of their campaigns."""

    handles: Sequence[tuple[Platform, Handle]]
    campaigns: Mapping[str, str]
    """Addresses of campaigns, by the prefix of their orders' names."""
    states: Mapping[str, JournalState]
    """What the journals say, by the same prefix."""


def reap(
    store_root: str, platforms: Sequence[Platform], now: datetime, *, is_dry_run: bool = False, wait_s: float = 20.0
) -> list[Orphan]:
    """Find orphans on all platforms, and end them unless this is a dry run.

    Raises:
        StoreError: the root or a journal cannot be read; nothing was ended.
    """
    with Background() as background:
        living = _look(store_root, platforms, background)
        found = []
        for platform, handle in living.handles:
            prefix = _campaign_prefix(handle)
            state = living.states.get(prefix, JournalState())
            if must_end := reason_to_end(state, handle.order, now, grace_s=_GRACE_S):
                is_over = not is_dry_run and _end(background, platform, handle, wait_s)
                campaign, why = living.campaigns.get(prefix, ""), must_end.words
                found.append(_orphan(handle, campaign, state, why, now, has_ended=is_over))
    return found


def owners_of(store_root: str, platforms: Sequence[Platform]) -> dict[str, str]:
    """Return the owner of each campaign under a root that is not closed and has GPU jobs on the platforms.

    Raises:
        StoreError: the root or a journal cannot be read.
    """
    with Background() as background:
        living = _look(store_root, platforms, background)
    return {
        living.campaigns[prefix]: state.opened.owner
        for prefix, state in living.states.items()
        if state.opened and not state.closed
    }


def _look(store_root: str, platforms: Sequence[Platform], background: Background) -> _Living:
    root = open_store(store_root)
    prefix = root_prefix(root.uri)
    handles = [(platform, handle) for platform in platforms for handle in background.run(platform.list_owned(prefix))]
    named = {order_prefix(f"{root.uri}/{name}"): f"{root.uri}/{name}" for name in campaign_names(root)}
    if handles and not named:
        raise StoreError(
            f"{root.uri} holds no campaign, but {len(handles)} GPU jobs carry its name: is it the right one?"
        )
    alive = {_campaign_prefix(handle) for _, handle in handles}
    campaigns = {each: uri for each, uri in named.items() if each in alive}
    states = {each: Journal(open_store(uri)).read() for each, uri in campaigns.items()}
    return _Living(handles=handles, campaigns=campaigns, states=states)


def _campaign_prefix(handle: Handle) -> str:
    return handle.order.rpartition("-")[0]


def _end(background: Background, platform: Platform, handle: Handle, wait_s: float) -> bool:
    give_up_at = time.monotonic() + wait_s
    while True:
        background.run(platform.stop(handle))
        seen: Mapping[Handle, Observation] = background.run(platform.observe([handle]))
        if seen[handle].phase.is_over or time.monotonic() > give_up_at:
            return seen[handle].phase.is_over
        time.sleep(0.2)


def _orphan(handle: Handle, campaign: str, state: JournalState, why: str, now: datetime, *, has_ended: bool) -> Orphan:
    ordered: Ordered | None = state.orders.get(handle.order)
    return Orphan(
        order=handle.order,
        platform=handle.platform,
        campaign=campaign,
        why=why,
        usd=None if ordered is None else spent_usd(ordered.order, ordered.at, now),
        has_ended=has_ended,
    )
