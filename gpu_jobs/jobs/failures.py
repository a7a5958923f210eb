"""How attempts and GPU jobs end, and what each end means. Pure: facts in, decision out.

Attempts, of one GPU worker at one chunk:

| cause | the item's fault? | counts towards conviction | what follows |
|---|---|---|---|
| stopped (SIGTERM, planned hand-over) | no | never | the next attempt goes on after the last part |
| released (given to a GPU worker that asked) | no | never | same |
| lost (heartbeat went stale) | unknown | never | same |
| transient (store or network) | no | never | same, until `max_attempts` |
| crashed (a process died) | maybe | if its GPU worker is proven and it advanced nothing | halve; quarantine |
| stalled (no sign of life for `stall_s`) | maybe | yes, likewise | same |
| image (workload does not import) | no | never | GPU worker exits before it leases |
| model (setup failed) | no | never | GPU worker exits before it leases |
| memory (the model does not fit) | no | never | GPU worker exits |

An exception about a batch never ends an attempt: the compute process repeats it item by item, and an item that fails
alone twice becomes an error row with its exception.

GPU jobs: `TREATMENTS` says for each `Failure` how many are borne and what is done about it. Which it is, whoever knows
says as a value: a GPU worker of itself, an adapter by its platform's codes. Words may be a user's, and never decide.
"""

import signal
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from gpu_jobs.errors import BalanceError, NoCapacityError, QuotaError, RejectedError


class Cause(StrEnum):
    STOPPED = "stopped"
    RELEASED = "released"
    LOST = "lost"
    TRANSIENT = "transient"
    CRASHED = "crashed"
    STALLED = "stalled"
    IMAGE = "image"
    MODEL = "model"
    MEMORY = "memory"

    @property
    def is_suspicious(self) -> bool:
        """An item may be to blame."""
        return self in (Cause.CRASHED, Cause.STALLED)


MAX_FRUITLESS_FAILURES = 3
"""A GPU worker that fails this often in a row without a commit exits: its host or image may be bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    """How an attempt ended that did not settle its chunk."""

    cause: Cause
    detail: str = ""
    advanced: bool = False
    """It wrote at least one part or checkpoint, so what is left is smaller than before."""
    vouched: bool = False
    """Its GPU worker had committed other work before, so host and image are sound."""
    version: int = 1

    @property
    def convicts(self) -> bool:
        return self.cause.is_suspicious and self.vouched and not self.advanced


class Verdict(StrEnum):
    WORK = "work"
    HALVE = "halve"
    QUARANTINE = "quarantine"


def judge(ends: Iterable[AttemptEnd], *, inherited: int, items_left: int, max_crashes: int) -> Verdict:
    """Decide what the next holder of a chunk does with what is left of it.

    Args:
        ends: of all earlier attempts at this chunk.
        inherited: convicting crashes that the chunk brings from the one it was cut from.
        items_left: items of the chunk that no part covers.
        max_crashes: see `Policy`.
    """
    crashes = inherited + sum(end.convicts for end in ends)
    if crashes < max_crashes or items_left == 0:
        return Verdict.WORK
    return Verdict.HALVE if items_left > 1 else Verdict.QUARANTINE


class Failure(StrEnum):
    """Why a GPU job, or its start, came to nothing."""

    PREEMPTED = "preempted"
    NO_CAPACITY = "no capacity"
    QUOTA = "quota"
    BALANCE = "balance"
    REJECTED = "rejected"
    IMAGE = "image"
    MODEL_LOAD = "model load"
    OUT_OF_MEMORY = "out of memory"
    USER_CODE = "user code"
    POISON_ITEM = "poison item"
    TIMEOUT = "timeout"
    LOST = "lost"
    UNKNOWN = "unknown"


class Remedy(StrEnum):
    """What is done about a failure."""

    AGAIN = "order again, like any other GPU job"
    PAUSE = "leave the offer alone for a while, longer each time, and ask for fewer GPU workers"
    DROP_PLATFORM = "use the platform no more"
    DROP_OFFER = "use the offer no more"
    MORE_MEMORY = "halve the micro-batch, lower the precision if that is allowed, then take a larger GPU"
    BREAKER = "count it in the offer's circuit breaker"
    SPLIT = "halve the chunk until the item is alone, and quarantine it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    remedy: Remedy
    budget: int | None
    """So many on one offer without a result between are borne before it is given up; None: any number."""
    is_error: bool = True
    """Counts towards giving up a campaign that gets nothing done."""


TREATMENTS = {
    Failure.PREEMPTED: Treatment(remedy=Remedy.AGAIN, budget=None, is_error=False),
    Failure.NO_CAPACITY: Treatment(remedy=Remedy.PAUSE, budget=None, is_error=False),
    Failure.QUOTA: Treatment(remedy=Remedy.PAUSE, budget=None, is_error=False),
    Failure.BALANCE: Treatment(remedy=Remedy.DROP_PLATFORM, budget=1),
    Failure.REJECTED: Treatment(remedy=Remedy.DROP_OFFER, budget=1),
    Failure.IMAGE: Treatment(remedy=Remedy.BREAKER, budget=2),
    Failure.MODEL_LOAD: Treatment(remedy=Remedy.BREAKER, budget=2),
    Failure.OUT_OF_MEMORY: Treatment(remedy=Remedy.MORE_MEMORY, budget=3),
    Failure.USER_CODE: Treatment(remedy=Remedy.BREAKER, budget=3),
    Failure.POISON_ITEM: Treatment(remedy=Remedy.SPLIT, budget=None, is_error=False),
    Failure.TIMEOUT: Treatment(remedy=Remedy.BREAKER, budget=3),
    Failure.LOST: Treatment(remedy=Remedy.BREAKER, budget=3),
    Failure.UNKNOWN: Treatment(remedy=Remedy.BREAKER, budget=3),
}
"""Budgets of a GPU job's failures. A poison item's is `Policy.max_crashes`; `judge` sees to it, no GPU job ends by it.
Of the memory ladder the first steps are the GPU worker's own. Once its GPU job fails of it, GPUs with no more memory
are used no more, if there is a larger one; the budget counts only if there is none."""

UNFIT = {
    Cause.IMAGE: Failure.IMAGE,
    Cause.MODEL: Failure.MODEL_LOAD,
    Cause.MEMORY: Failure.OUT_OF_MEMORY,
}
"""What a GPU worker fails of that cannot do any of the work."""


def failure_of_refusal(error: NoCapacityError | RejectedError) -> Failure:
    """Of a GPU job that was not started."""
    match error:
        case QuotaError():
            return Failure.QUOTA
        case BalanceError():
            return Failure.BALANCE
        case NoCapacityError():
            return Failure.NO_CAPACITY
    return Failure.REJECTED


def failure_of_exit(code: int) -> Failure:
    """Of a GPU worker's process that ended with a code other than 0; negative: killed by that signal."""
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return Failure.OUT_OF_MEMORY  # a GPU worker is killed for little else, but where its platform says so
    return Failure.USER_CODE if code > 0 else Failure.UNKNOWN


def gravest(failures: Iterable[Failure | None]) -> Failure | None:
    """Of several GPU workers': errors before what is nobody's, and what is known before what is not."""
    order = list(Failure)
    return min(
        filter(None, failures), key=lambda each: (not TREATMENTS[each].is_error, order.index(each)), default=None
    )
