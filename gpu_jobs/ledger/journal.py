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
    """A flow run took the campaign over, under a policy."""

    owner: Annotated[str, Field(validation_alias=AliasChoices("owner", "opener"))]
    policy: Policy
    at: datetime
    kind: Literal["opened"] = "opened"
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """A GPU job will be started, and its worst-case dollars are set aside."""

    order: Order
    owner: Annotated[str, Field(validation_alias=AliasChoices("owner", "opener"))]
    reason: str
    at: datetime
    kind: Literal["ordered"] = "ordered"
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A GPU job is over: nothing of it runs."""

    order: str
    reason: str
    """Why, in words for people."""
    items_done: int
    spent_usd: float
    at: datetime
    detail: str = ""
    outcome: JobOutcome = JobOutcome.SUCCEEDED
    """Never `SUCCEEDED` with a failure: entries of version 1 have no outcome, and failed if they carry a failure."""
    failure: Failure | None = None
    """What it failed of; None if it did not, or if we stopped it for no fault of its platform."""
    checkpoints: int = 0
    """Of long items; getting on is not being idle."""
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
    """An exception ended its loop."""
    STOPPED = "stopped"
    """Somebody outside of its loop stopped it: a person, or the hook of a flow run that ended."""
    BUDGET = "budget"
    """What is left of the budget is too little for any GPU job."""
    DEADLINE = "deadline"
    """It has passed, or is too near for a GPU worker to start."""
    NO_OFFER = "no offer"
    """No platform offers what the policy allows."""
    OFFERS_REFUSED = "offers refused"
    """Every offer was given up for good."""
    NO_CAPACITY = "no capacity"
    """No GPU worker was available for `Policy.max_wait_hours`."""
    IDLE_JOBS = "idle jobs"
    """GPU jobs failed without a result, more in a row than `Policy.max_idle_jobs` allows."""
    ATTEMPTS = "attempts"
    """A chunk had `Policy.max_attempts`."""
    QUARANTINE = "quarantine"
    """More than `Policy.max_quarantined_share` of the items have no rows."""
    UNKNOWN = "unknown"
    """The entry is of version 1, which had words only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """No more leases and no more orders, until it is opened again."""

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
    """What the entries so far amount to; each value is computed when it is first asked for, and kept."""

    entries: tuple[JournalEntry, ...] = ()

    @property
    def next_seq(self) -> int:
        return len(self.entries) + 1

    @cached_property
    def opened(self) -> Opened | None:
        return next((entry for entry in reversed(self.entries) if isinstance(entry, Opened)), None)

    @cached_property
    def closed(self) -> Closed | None:
        """The closing that rules now; None if the campaign was opened after it."""
        for entry in reversed(self.entries):
            if isinstance(entry, Closed):
                return entry
            if isinstance(entry, Opened):
                return None
        return None

    @cached_property
    def orders(self) -> dict[str, Ordered]:
        """All GPU jobs ever ordered, by name, in order."""
        return {entry.order.name: entry for entry in self.entries if isinstance(entry, Ordered)}

    @cached_property
    def orders_of_opening(self) -> list[Ordered]:
        """GPU jobs ordered since the last opening, and those that it found alive."""
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
        """Why `entry` may not come next; None if it may."""
        if isinstance(entry, Opened):
            return None
        if isinstance(entry, Ended):
            known = entry.order in self.orders and entry.order not in self.ended
            return None if known else CampaignError(f"GPU job {entry.order} is not open in the journal")
        opened = self.opened
        if opened is None or opened.owner != entry.owner:
            now = "nobody" if opened is None else opened.owner
            return SupersededError(f"this campaign was opened by {now} since; this flow run gives way")
        if self.closed:
            return CampaignClosedError(f"the campaign is closed: {self.closed.reason}")
        return None


def _parse(body: bytes, seq: int) -> JournalEntry:
    try:
        return _ENTRY.validate_json(body)
    except ValidationError as error:
        raise StoreError(f"{keys.journal(seq)} is damaged: {error.errors()[0]['msg']}") from error


class Journal:
    """Reads forward and appends; keeps what it has read, since entries never change."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._state = JournalState()

    def read(self) -> JournalState:
        """Read whatever was added since the last read: nothing costs one call, the first read one listing more."""
        known = self._state.entries
        added = self._follow(len(known) + 1) if known else self._catch_up()
        if added:
            self._state = JournalState((*known, *added))
        return self._state

    def _catch_up(self) -> list[JournalEntry]:
        """All entries, fetched side by side."""
        expected = (keys.journal(seq) for seq in count(1))
        listed = (entry.key for entry in self._store.list(keys.JOURNAL))
        found = [key for key, _ in takewhile(lambda pair: pair[0] == pair[1], zip(listed, expected, strict=False))]
        return [_parse(body, seq) for seq, body in enumerate(get_many(self._store, found), start=1) if body is not None]

    def _follow(self, seq: int) -> list[JournalEntry]:
        """The entries from `seq` on, one after another."""
        added: list[JournalEntry] = []
        while (body := self._store.get(keys.journal(seq + len(added)))) is not None:
            added.append(_parse(body, seq + len(added)))
        return added

    def append(self, entry: JournalEntry, upon: JournalState) -> bool:
        """Create `entry` as the next after `upon`; False if another came first.

        Raises:
            SupersededError: `entry` orders or closes, and another flow run has opened the campaign since ours.
            CampaignClosedError: `entry` orders, and the campaign is closed.
            CampaignError: `entry` ends what is not open.
        """
        if error := upon.refusal(entry):
            raise error
        return self._store.create(keys.journal(upon.next_seq), _ENTRY.dump_json(entry))
