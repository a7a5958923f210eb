"""The seam between a workload and whatever generates tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from gpu_jobs.workloads.batch_size import BatchSize
from gpu_jobs.workloads.engines.precision import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which model, where, and how."""

    name: str
    """As people call it, for messages."""
    folder: Path
    device: str
    """ "cpu" or "cuda:0"."""
    precision: Precision
    num_gpus: int = 1
    """That one copy of the model spans."""
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt, as tokens, and how it is to be continued."""

    tokens: Sequence[int]
    max_new_tokens: int
    temperature: float = 0.0
    """0: greedy, always the most likely token."""
    top_p: float = 1.0
    seed: int = 0
    """Of this request alone, so that the text does not depend on what else is in the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the model said."""

    tokens: Sequence[int]
    """Without the prompt and without the token that ends it."""
    finish_reason: Literal["stop", "length"]


class Engine(Protocol):
    """One loaded model."""

    facts: Mapping[str, str]
    """For the manifest: `engine`, `precision` and whatever else the outputs may depend on."""
    batch_size: BatchSize
    """How many requests it works on at once."""
    context_tokens: int
    """Prompt and answer together."""

    def run(self, requests: Sequence[Request]) -> Sequence[Result]:
        """Answer each, in order.

        Raises:
            MemoryError, RuntimeError: not even one request at a time fits; see `batches.is_out_of_memory`.
        """

    def close(self) -> None:
        """Give the device back."""
