"""The campaign's numbered decisions. An entry is valid only against the entries before it.

Whoever decides reads to the last entry, decides, and creates the next number. If that number is taken, somebody else
decided meanwhile: read it and decide again. So two flow runs can neither order the same GPU worker nor spend the same
dollar.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from itertools import count, takewhile
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, TypeAdapter, ValidationError

from gpu_jobs.errors import CampaignClosedError, CampaignError, StoreError, SupersededError
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.orders import JobOutcome, Order, Policy
from gpu_jobs.ledger import keys
from gpu_jobs.store.base import Store
from gpu_jobs.store.parallel import get_many


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A flow run took over the campaign, with a policy."""

    owner: Annotated[str, Field(validation_alias=AliasChoices("owner", "opener"))]
    policy: Policy
    at: datetime
    kind: Literal["opened"] = "opened"
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """A GPU job will be started, and the most that it can cost is reserved."""

    order: Order
    owner: Annotated[str, Field(validation_alias=AliasChoices("owner", "opener"))]
    reason: str
    at: datetime
    kind: Literal["ordered"] = "ordered"
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A GPU job is over: none of its GPU workers runs."""

    order: str
    reason: str
    """Why, in words for people."""
    items_done: int
    spent_usd: float
    at: datetime
    detail: str = ""
    outcome: JobOutcome = JobOutcome.SUCCEEDED
    """Never `SUCCEEDED` with a failure. Entries of version 1 have no outcome; with a failure they are `FAILED`."""
    failure: Failure | None = None
    """Why the GPU job failed; None if it did not fail, or if it was stopped and its platform was not at fault."""
    checkpoints: int = 0
    """How many checkpoints of long items its GPU workers stored; a GPU job that stored some was not idle."""
    kind: Literal["ended"] = "ended"
    version: int = 2

    def __post_init__(self) -> None:
        if self.failure is not None and self.outcome is JobOutcome.SUCCEEDED:
            object.__setattr__(self, "outcome", JobOutcome.FAILED)


class CloseCause(StrEnum):
    """Why a campaign was closed."""

    COMPLETE = "complete"
    """Every item is settled."""
    INTERRUPTED = "interrupted"
    """An exception ended the campaign's loop."""
    STOPPED = "stopped"
    """Something outside the loop stopped the campaign: a person, or the hook of a flow run that ended."""
    BUDGET = "budget"
    """The rest of the budget is too small for any GPU job."""
    DEADLINE = "deadline"
    """The deadline has passed, or is too near for a GPU worker to start."""
    NO_OFFER = "no offer"
    """No platform offers what the policy allows."""
    OFFERS_REFUSED = "offers refused"
    """Every offer was dropped permanently."""
    NO_CAPACITY = "no capacity"
    """No GPU worker was available for `Policy.max_wait_hours`."""
    IDLE_JOBS = "idle jobs"
    """More consecutive GPU jobs failed without a result than `Policy.max_idle_jobs` allows."""
    ATTEMPTS = "attempts"
    """All `Policy.max_attempts` attempts at a chunk have ended."""
    QUARANTINE = "quarantine"
    """More than `Policy.max_quarantined_share` of the items have no rows."""
    UNKNOWN = "unknown"
    """The entry is of version 1, which had only words for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The campaign is closed: no more leases and no more orders until it is opened again."""

    reason: str
    """Why, in words for people."""
    owner: Annotated[str, Field(validation_alias=AliasChoices("owner", "opener"))]
    at: datetime
    cause: CloseCause = CloseCause.UNKNOWN
    kind: Literal["closed"] = "closed"
    version: int = 2


JournalEntry = Annotated[Opened | Ordered | Ended | Closed, Field(discriminator="kind")]
_ENTRY: TypeAdapter[JournalEntry] = TypeAdapter(JournalEntry)


@dataclass(frozen=True)
class JournalState:
    """The entries so far, and what follows from them; each value is computed at its first use and kept."""

    entries: tuple[JournalEntry, ...] = ()

    @property
    def next_seq(self) -> int:
        return len(self.entries) + 1

    @cached_property
    def opened(self) -> Opened | None:
        return next((entry for entry in reversed(self.entries) if isinstance(entry, Opened)), None)

    @cached_property
    def closed(self) -> Closed | None:
        """The closing that is in force; None if the campaign was never closed or was opened after it."""
        for entry in reversed(self.entries):
            if isinstance(entry, Closed):
                return entry
            if isinstance(entry, Opened):
                return None
        return None

    @cached_property
    def orders(self) -> dict[str, Ordered]:
        """All GPU jobs ever ordered, by name, in the order of the journal."""
        return {entry.order.name: entry for entry in self.entries if isinstance(entry, Ordered)}

    @cached_property
    def orders_of_opening(self) -> list[Ordered]:
        """GPU jobs ordered since the last opening, and those that were alive at that moment."""
        ended_before = {entry.order for entry in self.entries[: self._opened_at] if isinstance(entry, Ended)}
        return [entry for name, entry in self.orders.items() if name not in ended_before]

    @cached_property
    def ended(self) -> dict[str, Ended]:
        return {entry.order: entry for entry in self.entries if isinstance(entry, Ended)}

    @cached_property
    def live_orders(self) -> list[Order]:
        return [entry.order for name, entry in self.orders.items() if name not in self.ended]

    @cached_property
    def ends_of_opening(self) -> list[Ended]:
        """GPU jobs that have ended since the last opening, in order."""
        return [entry for entry in self.entries[self._opened_at :] if isinstance(entry, Ended)]

    @cached_property
    def _opened_at(self) -> int:
        """Index of the last opening; 0 if there is none."""
        return max((at for at, entry in enumerate(self.entries) if isinstance(entry, Opened)), default=0)

    def refusal(self, entry: JournalEntry) -> CampaignError | None:
        """The error that forbids `entry` as the next entry; None if it is allowed."""
        if isinstance(entry, Opened):
            return None
        if isinstance(entry, Ended):
            known = entry.order in self.orders and entry.order not in self.ended
            return None if known else CampaignError(f"GPU job {entry.order} is not open in the journal")
        opened = self.opened
        if opened is None or opened.owner != entry.owner:
            now = "nobody" if opened is None else opened.owner
            return SupersededError(f"this campaign is now owned by {now}; this flow run stops")
        if self.closed:
            return CampaignClosedError(f"the campaign is closed: {self.closed.reason}")
        return None


def _parse(body: bytes, seq: int) -> JournalEntry:
    try:
        return _ENTRY.validate_json(body)
    except ValidationError as error:
        raise StoreError(f"{keys.journal(seq)} is damaged: {error.errors()[0]['msg']}") from error


class Journal:
    """Reads and appends entries; keeps what it has read, since entries never change."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._state = JournalState()

    def read(self) -> JournalState:
        """Read what was added since the last read.

        This costs one call to the store if nothing was added; the first read also costs a listing.
        """
        known = self._state.entries
        added = self._follow(len(known) + 1) if known else self._catch_up()
        if added:
            self._state = JournalState((*known, *added))
        return self._state

    def _catch_up(self) -> list[JournalEntry]:
        """All entries, several fetched at a time."""
        expected = (keys.journal(seq) for seq in count(1))
        listed = (entry.key for entry in self._store.list(keys.JOURNAL))
        found = [key for key, _ in takewhile(lambda pair: pair[0] == pair[1], zip(listed, expected, strict=False))]
        return [_parse(body, seq) for seq, body in enumerate(get_many(self._store, found), start=1) if body is not None]

    def _follow(self, seq: int) -> list[JournalEntry]:
        """The entries from number `seq` on, fetched one after another."""
        added: list[JournalEntry] = []
        while (body := self._store.get(keys.journal(seq + len(added)))) is not None:
            added.append(_parse(body, seq + len(added)))
        return added

    def append(self, entry: JournalEntry, upon: JournalState) -> bool:
        """Create `entry` as the next entry after `upon`; False if another entry was created first.

        Raises:
            SupersededError: `entry` orders or closes, and its owner is not the last that opened the campaign.
            CampaignClosedError: `entry` orders or closes, and the campaign is closed.
            CampaignError: `entry` ends a GPU job that was not ordered or that has ended.
        """
        if error := upon.refusal(entry):
            raise error
        return self._store.create(keys.journal(upon.next_seq), _ENTRY.dump_json(entry))
