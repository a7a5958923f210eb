"""How attempts and GPU jobs end, and what each end means. Pure: facts in, decision out.

An attempt is one GPU worker's work on one chunk. How it can end:

| cause | is an item to blame? | counts as a crash | what follows |
|---|---|---|---|
| stopped (SIGTERM, planned hand-over) | no | never | the next attempt continues after the last part |
| released (given to a GPU worker that asked for work) | no | never | same |
| lost (the heartbeat became too old) | unknown | never | same |
| transient (store or network) | no | never | same, until `max_attempts` |
| crashed (a process died) | maybe | if the GPU worker is trusted and the attempt finished nothing | halve; quarantine |
| stalled (no message for `stall_s`) | maybe | under the same conditions | same |
| image (the workload cannot be imported) | no | never | the GPU worker exits before it leases |
| model (setup failed) | no | never | the GPU worker exits before it leases |
| memory (the model does not fit) | no | never | the GPU worker exits |

An exception in a batch never ends an attempt: the compute process repeats the batch item by item, and an item that
fails twice alone becomes an error row with its exception.

For GPU jobs, `TREATMENTS` says for each `Failure` how many are tolerated and what is done about it. GPU workers and
platform adapters report a failure as a value of this enum. No message is ever read to find it out: the text may come
from a user's code.
"""

import signal
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import AliasChoices, Field

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
        """Whether an item may be to blame."""
        return self in (Cause.CRASHED, Cause.STALLED)


MAX_FRUITLESS_FAILURES = 3
"""A GPU worker exits after this many consecutive failures without a commit, because its host or image may be bad."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    """How an attempt that did not settle its chunk ended."""

    cause: Cause
    detail: str = ""
    advanced: bool = False
    """Whether the attempt wrote at least one part or checkpoint, so that less is left than before."""
    trusted: Annotated[bool, Field(validation_alias=AliasChoices("trusted", "vouched"))] = False
    """Whether the GPU worker had committed other work before, which shows that its host and image are sound."""
    version: int = 1

    @property
    def blames_items(self) -> bool:
        """Whether this end counts as a crash for which an item of the chunk is to blame."""
        return self.cause.is_suspicious and self.trusted and not self.advanced


class Verdict(StrEnum):
    WORK = "work"
    HALVE = "halve"
    QUARANTINE = "quarantine"


def judge(ends: Iterable[AttemptEnd], *, inherited: int, items_left: int, max_crashes: int) -> Verdict:
    """Decide what the next holder of a chunk does with what is left of it.

    Args:
        ends: The ends of all earlier attempts at this chunk.
        inherited: Crashes blamed on the larger chunk that this one was cut from.
        items_left: Number of items in the chunk that no part covers.
        max_crashes: See `Policy.max_crashes`.
    """
    crashes = inherited + sum(end.blames_items for end in ends)
    if crashes < max_crashes or items_left == 0:
        return Verdict.WORK
    return Verdict.HALVE if items_left > 1 else Verdict.QUARANTINE


class Failure(StrEnum):
    """Why a GPU job failed, or could not be started."""

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
    PAUSE = "pause the offer, longer after each refusal, and then ask for fewer GPU workers"
    DROP_PLATFORM = "do not use the platform any more"
    DROP_OFFER = "do not use the offer any more"
    MORE_MEMORY = "halve the micro-batch, lower the precision if that is allowed, then take a larger GPU"
    BREAKER = "count it in the offer's circuit breaker"
    SPLIT = "halve the chunk until the item is alone, then quarantine the item"


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """How one kind of failure of GPU jobs is handled."""

    remedy: Remedy
    budget: int | None
    """Consecutive failures tolerated per offer; None means unlimited."""
    is_error: bool = True
    """Whether the failure counts towards closing a campaign in which no GPU job gets anything done."""


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
"""How each failure of a GPU job is handled.

The limit for a poison item is `Policy.max_crashes`: `judge` applies it to chunks, and no GPU job ends because of it.
When memory runs out, the GPU worker itself first takes smaller micro-batches and a lower precision. If its GPU job
still fails, GPUs with no more memory than that one are not used again, provided that there is a larger one; the budget
counts only if there is none."""

UNFIT = {
    Cause.IMAGE: Failure.IMAGE,
    Cause.MODEL: Failure.MODEL_LOAD,
    Cause.MEMORY: Failure.OUT_OF_MEMORY,
}
"""The failure of a GPU worker that cannot do any work at all, by the cause that it found."""


def failure_of_refusal(error: NoCapacityError | RejectedError) -> Failure:
    """Return the failure of a GPU job that could not be started."""
    match error:
        case QuotaError():
            return Failure.QUOTA
        case BalanceError():
            return Failure.BALANCE
        case NoCapacityError():
            return Failure.NO_CAPACITY
    return Failure.REJECTED


def failure_of_exit(code: int) -> Failure:
    """Return the failure of a GPU worker's process.

    Args:
        code: Its exit code, other than 0; a negative one is the number of the signal that killed the process.
    """
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return Failure.OUT_OF_MEMORY  # the usual reason for SIGKILL; platforms report the others by a code
    return Failure.USER_CODE if code > 0 else Failure.UNKNOWN


def gravest(failures: Iterable[Failure | None]) -> Failure | None:
    """Return the most serious of several GPU workers' failures.

    Errors come before failures that are nobody's fault (such as a preemption), and known causes before unknown ones.
    """
    order = list(Failure)
    return min(
        filter(None, failures), key=lambda each: (not TREATMENTS[each].is_error, order.index(each)), default=None
    )
