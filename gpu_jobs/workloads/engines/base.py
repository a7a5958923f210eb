"""Interface between a workload and an engine that generates tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from gpu_jobs.workloads.batch_size import BatchSize
from gpu_jobs.workloads.engines.precision import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which model to load, from where, onto which device and how."""

    name: str
    """The model's name for messages."""
    folder: Path
    device: str
    """ "cpu" or "cuda:0"."""
    precision: Precision
    num_gpus: int = 1
    """Number of GPUs that one copy of the model spans."""
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt as tokens, and how to generate its answer."""

    tokens: Sequence[int]
    max_new_tokens: int
    temperature: float = 0.0
    """0 means greedy decoding: always the most likely token."""
    top_p: float = 1.0
    seed: int = 0
    """Sampling seed of this request alone, so that its text does not depend on the rest of the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The answer to one request."""

    tokens: Sequence[int]
    """The generated tokens, without the prompt and without the end token."""
    finish_reason: Literal["stop", "length"]


class Engine(Protocol):
    """One loaded model."""

    facts: Mapping[str, str]
    """Facts for the campaign's manifest: `engine`, `precision` and all else that outputs may depend on."""
    batch_size: BatchSize
    """How many requests the engine runs at once."""
    context_tokens: int
    """Maximum number of tokens of prompt and answer together."""

    def run(self, requests: Sequence[Request]) -> Sequence[Completion]:
        """Answer all requests, in order.

        Raises:
            MemoryError, RuntimeError: not even one request at a time fits; see `batch_size.is_out_of_memory`.
        """

    def close(self) -> None:
        """Release the device's memory."""
