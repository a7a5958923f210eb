"""Every error that Fanfold raises on purpose. The class says what the caller should do next.

FanfoldError
├── RefusedError            the request is wrong: change the named field
├── NothingNewError         with `only_new`: every item was done before, so there is nothing to do
├── StoreError              the store cannot be used
│   └── StoreUnavailableError   ... at the moment: call again
├── PlatformError           one GPU platform refused or failed
│   ├── NoCapacityError         nothing was started: another offer may have capacity
│   │   └── QuotaError              ... because of a limit of the account: wait, or raise the limit
│   ├── RejectedError           our request is wrong: the same request fails again
│   │   └── BalanceError            ... or not paid for: the platform is not used any more
│   └── OutcomeUnknownError     the reply was lost: look up what happened before asking again
├── CampaignError           the campaign cannot go on
│   ├── SupersededError         a newer flow run owns the campaign: stop
│   ├── CampaignClosedError     the campaign is closed: open it again to resume
│   └── AuditError              the ledger does not add up: nothing was published
├── WorkloadImportError     the image cannot run this workload: no item is to blame
│   └── ModelTooLargeError      ... on this GPU: use a larger GPU
├── WorkDiedError           processes that worked on an item died, because of the item or of their machine
└── ItemError               one item cannot be used: it becomes that item's error row
    ├── DivergedError           a loss is NaN or infinite: use other hyperparameters
    └── DoesNotFitError         even the smallest step does not fit into memory: use a smaller model or a larger GPU
"""

from collections.abc import Mapping, Sequence
from typing import Any


class FanfoldError(Exception):
    """Base of all errors below."""


class RefusedError(FanfoldError):
    """The request is wrong; nothing was started."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class NothingNewError(FanfoldError):
    """Earlier campaigns have committed every item; nothing was started."""


class StoreError(FanfoldError):
    """The store cannot be used as asked: no such bucket, no permission, a damaged object."""


class StoreUnavailableError(StoreError):
    """The store did not answer in time; whether the last call took effect is unknown."""


class PlatformError(FanfoldError):
    """One GPU platform refused or failed."""


class NoCapacityError(PlatformError):
    """Nothing was started, for lack of machines; another offer may have capacity."""


class QuotaError(NoCapacityError):
    """Nothing was started, because this account would exceed a limit on its machines or requests."""


class RejectedError(PlatformError):
    """The platform refuses the request itself; the same request fails again."""


class BalanceError(RejectedError):
    """The platform requires a payment first."""


class OutcomeUnknownError(PlatformError):
    """The reply was lost: GPU workers may or may not be running."""


class CampaignError(FanfoldError):
    """The campaign cannot go on as it is."""


class SupersededError(CampaignError):
    """A newer flow run opened this campaign; this one stops."""


class CampaignClosedError(CampaignError):
    """The campaign is closed; open it again to resume."""


class AuditError(CampaignError):
    """Settlements, parts and items do not add up; nothing was published."""


class WorkloadImportError(FanfoldError):
    """The workload's code cannot be loaded here: a fault of the image, never of an item."""


class ModelTooLargeError(WorkloadImportError):
    """The workload's model does not fit into the memory of this device."""


class WorkDiedError(FanfoldError):
    """Processes that worked on a long item died without reporting why; the attempt ends as crashed."""


class ItemError(FanfoldError):
    """One item cannot be used. Raise it from `load` or return it from `infer`."""

    def __init__(self, message: str = "", *, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        """Take the cause, and the rows that the item has all the same, if only a part of it cannot be used."""
        super().__init__(message)
        self.rows = rows


class DivergedError(ItemError):
    """The loss of a training run is NaN or infinite."""


class DoesNotFitError(ItemError):
    """Even one sequence at a time does not fit into the memory of the device."""
