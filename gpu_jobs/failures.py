"""How attempts end, and what each end means. Pure: facts in, decision out.

| cause | the item's fault? | counts towards conviction | what follows |
|---|---|---|---|
| stopped (SIGTERM, planned hand-over) | no | never | the next attempt goes on after the last part |
| released (given to a GPU worker that asked) | no | never | same |
| lost (heartbeat went stale) | unknown | never | same |
| transient (store or network) | no | never | same, until `max_attempts` |
| crashed (compute process died) | maybe | if its GPU worker is proven and it advanced nothing | halve; quarantine |
| stalled (no sign of life for `stall_s`) | maybe | yes, likewise | same |
| image (workload does not import) | no | never | GPU worker exits before it leases |
| model (setup failed) | no | never | GPU worker exits before it leases |

An exception about a batch never ends an attempt: the compute process repeats it item by item, and an item that fails
alone twice becomes an error row with its exception.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    STOPPED = "stopped"
    RELEASED = "released"
    LOST = "lost"
    TRANSIENT = "transient"
    CRASHED = "crashed"
    STALLED = "stalled"
    IMAGE = "image"
    MODEL = "model"

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
    """It wrote at least one part, so what is left is smaller than before."""
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
