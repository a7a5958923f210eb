"""Every error that Fanfold raises on purpose. The class says what the caller does next.

FanfoldError
├── RefusedError            the request is wrong: change the named field
├── NothingNewError         with `only_new`, every item was done before: there is nothing to do
├── StoreError              the store cannot be used
│   └── StoreUnavailableError   ... just now: call again
├── PlatformError           one GPU platform said no
│   ├── NoCapacityError         nothing started: another offer may do
│   │   └── QuotaError              ... for a limit of ours there: later, or a higher limit
│   ├── RejectedError           our request is wrong: asking again fails alike
│   │   └── BalanceError            ... or not paid for: the platform is used no more
│   └── OutcomeUnknownError     the reply was lost: look it up before asking again
├── CampaignError           the campaign cannot go on
│   ├── SupersededError         a newer flow run owns it: give way
│   ├── CampaignClosedError     the journal says closed: open it again to resume
│   └── AuditError              the ledger does not add up: nothing was published
├── WorkloadImportError     the image cannot run this workload: no item is to blame
│   └── ModelTooLargeError      ... on this GPU: a larger one may do
├── WorkDiedError           processes that worked on an item died: of the item, or of their machine
└── ItemError               one item cannot be used: it becomes that item's error row
    ├── DivergedError           a training's loss is no number any more: other hyperparameters
    └── DoesNotFitError         not even the smallest step fits into memory: a smaller model, or a larger GPU
"""


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
    """The store did not answer in time; nothing is known about the last call."""


class PlatformError(FanfoldError):
    """One GPU platform refused or failed."""


class NoCapacityError(PlatformError):
    """Nothing started for want of machines; another offer may do."""


class QuotaError(NoCapacityError):
    """Nothing started, since it would be more than this account may have or ask for."""


class RejectedError(PlatformError):
    """The platform refuses the request itself; asking again fails alike."""


class BalanceError(RejectedError):
    """The platform wants money first."""


class OutcomeUnknownError(PlatformError):
    """The reply was lost: GPU workers may or may not be running."""


class CampaignError(FanfoldError):
    """The campaign cannot go on as it is."""


class SupersededError(CampaignError):
    """A newer flow run opened this campaign; this one gives way."""


class CampaignClosedError(CampaignError):
    """The campaign is closed; open it again to resume."""


class AuditError(CampaignError):
    """Settlements, parts and items do not add up; nothing was published."""


class WorkloadImportError(FanfoldError):
    """The workload's code cannot be loaded here: a fault of the image, never of an item."""


class ModelTooLargeError(WorkloadImportError):
    """The workload's model does not fit into the memory of this device."""


class WorkDiedError(FanfoldError):
    """Processes that worked on a long item died without a word; the attempt ends as crashed."""


class ItemError(FanfoldError):
    """One item cannot be used. Raise it from `load` or return it from `infer`."""


class DivergedError(ItemError):
    """A training's loss is no number any more."""


class DoesNotFitError(ItemError):
    """Not even one sequence at a time fits into the memory of the device."""
