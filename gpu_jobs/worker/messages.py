"""What the supervisor and its compute process say to each other, over one pipe."""

from typing import NamedTuple

from gpu_jobs.jobs.failures import Cause
from gpu_jobs.ledger.ranges import Chunk


class Assign(NamedTuple):
    """Supervisor → compute: work on these items."""

    token: int
    todo: Chunk


class Cut(NamedTuple):
    """Supervisor → compute: of that assignment, do nothing from this item on."""

    token: int
    stop: int


class Ready(NamedTuple):
    """Compute → supervisor: the model is loaded."""

    seconds: float
    device: str
    is_long: bool
    """Its items are; see `LongWorkload`."""


class Stop(NamedTuple):
    """Supervisor → compute, at a long item: leave it at a checkpoint, and exit."""


class Progress(NamedTuple):
    """Compute → supervisor, at a long item: work goes on."""

    token: int
    doing: str
    checkpoint: bool
    """A new one is whole in the store."""


class Done(NamedTuple):
    """Compute → supervisor: these items are finished; consecutive within one assignment."""

    token: int
    range: Chunk
    body: bytes
    """Encoded rows, see `gpu_jobs.ledger.rows`."""
    num_failed: int
    busy_s: float
    """Time inside `infer`."""
    latency_s: float = 0.0
    """Of the whole micro-batch that they were in."""


class Learned(NamedTuple):
    """Compute → supervisor, when it changes: what the outputs may depend on, and what the device likes."""

    facts: dict[str, str]
    batch_size: int
    """0: not known yet."""


class Failed(NamedTuple):
    """Compute → supervisor: the process gives up, and no item is to blame."""

    cause: Cause
    detail: str
