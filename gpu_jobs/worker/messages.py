"""The messages between the supervisor and its compute process, which share one pipe."""

from typing import NamedTuple

from gpu_jobs.jobs.failures import Cause
from gpu_jobs.ledger.ranges import Chunk


class Assign(NamedTuple):
    """Supervisor → compute: work on these items."""

    token: int
    todo: Chunk


class Cut(NamedTuple):
    """Supervisor → compute: skip the items of that assignment from index `stop` on."""

    token: int
    stop: int


class Ready(NamedTuple):
    """Compute → supervisor: the model is loaded."""

    seconds: float
    device: str
    is_long: bool
    """Whether the workload's items are long; see `LongWorkload`."""


class Stop(NamedTuple):
    """Supervisor → compute, during a long item: leave it at a checkpoint, and exit."""


class ItemProgress(NamedTuple):
    """Compute → supervisor, during a long item: a report of progress."""

    token: int
    doing: str
    checkpoint: bool
    """Whether a new, complete checkpoint is in the store."""


class Done(NamedTuple):
    """Compute → supervisor: these items are finished. They are consecutive items of one assignment."""

    token: int
    range: Chunk
    body: bytes
    """The encoded rows; see `gpu_jobs.ledger.rows`."""
    num_failed: int
    busy_s: float
    """Seconds spent in `infer`."""
    latency_s: float = 0.0
    """Seconds that the whole micro-batch of these items took."""


class Learned(NamedTuple):
    """Compute → supervisor, on each change: facts that the outputs may depend on, and the batch size found."""

    facts: dict[str, str]
    batch_size: int
    """0 while it is not known."""


class Failed(NamedTuple):
    """Compute → supervisor: the process gives up. No item is to blame."""

    cause: Cause
    detail: str
