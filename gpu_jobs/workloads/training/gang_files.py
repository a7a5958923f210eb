"""What the processes of a gang are told, and what they leave behind: files in one folder of this machine."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from gpu_jobs.workloads.training.settings import TrainingParams

SPEC = "gang_spec.json"
METRICS = "metrics.jsonl"
"""One object per logged step, appended by the first process."""
OUTCOME = "outcome.json"
"""How the gang ended, by whichever process knew first."""
STOP = "stop"
"""Made by the GPU worker: leave at a checkpoint."""
STOP_AT = "stop-at"
"""Made by the first process: the step at whose end all leave."""
SAVED = "saved-"
"""In a checkpoint, followed by the number of a process that has written its share."""
MODEL = "model"
"""Folder of the finished model or adapter."""
BEST = "best"
"""Folder of the weights with the lowest validation loss so far; a checkpoint holds a copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GangSpec:
    """One start of a gang."""

    params: TrainingParams
    model_folder: str
    data_folder: str
    """See `prepared`."""
    out: str
    """Folder for everything that this gang writes."""
    resume_from: str
    """Folder of a checkpoint; "" to begin."""
    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16", "fp16"]
    micro_batch: int
    accumulation: int
    gradient_checkpointing: bool
    watched_pid: int
    """The gang ends when this process does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GangOutcome:
    """How a gang ended."""

    kind: Literal["finished", "stopped", "out of memory", "diverged", "error"]
    detail: str = ""
    step: int = 0
    eval_loss: float | None = None
    stopped_early: bool = False
    kept_step: int = 0
    """Whose weights are kept."""
    log: list[dict[str, int | float | str]] = field(default_factory=list)
    """Every logged step since the beginning, over all attempts; the first is the base model's evaluation."""
    sample: str = ""


_SPEC = TypeAdapter(GangSpec)
_OUTCOME = TypeAdapter(GangOutcome)


def write_spec(spec: GangSpec) -> Path:
    path = Path(spec.out, SPEC)
    path.write_bytes(_SPEC.dump_json(spec))
    return path


def read_spec(path: Path) -> GangSpec:
    return _SPEC.validate_json(path.read_bytes())


def write_outcome(out: str, outcome: GangOutcome) -> None:
    """The first process to tell wins; what follows in others is only the consequence."""
    path = Path(out, OUTCOME)
    temp = path.with_name(f".{OUTCOME}.{id(outcome)}.{outcome.kind[:3]}")
    temp.write_bytes(_OUTCOME.dump_json(outcome))
    try:
        path.hardlink_to(temp)
    except FileExistsError:
        return
    finally:
        temp.unlink()


def read_outcome(out: Path) -> GangOutcome | None:
    try:
        return _OUTCOME.validate_json((out / OUTCOME).read_bytes())
    except FileNotFoundError:
        return None
