"""Files through which a GPU worker and its gang communicate, all in one local folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from gpu_jobs.workloads.training.settings import TrainingParams

SPEC = "gang_spec.json"
METRICS = "metrics.jsonl"
"""One object per logged step, appended by the first process."""
OUTCOME = "outcome.json"
"""How the gang ended, written by the first process that knew."""
STOP = "stop"
"""Created by the GPU worker: write a checkpoint and stop."""
STOP_AT = "stop-at"
"""Created by the first process: the step at whose end all processes stop."""
SAVED = "saved-"
"""Prefix of a file in a checkpoint; the rank of a process that has written its part follows."""
MODEL = "model"
"""Folder of the finished model or adapter."""
BEST = "best"
"""Folder of the weights with the lowest validation loss so far; a checkpoint holds a copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GangSpec:
    """All that the processes of one gang need to know."""

    params: TrainingParams
    model_folder: str
    data_folder: str
    """Folder with the training data, see `prepared`."""
    out: str
    """Folder for everything that this gang writes."""
    resume_from: str
    """Folder of the checkpoint to resume from; "" to start from the base model."""
    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16", "fp16"]
    micro_batch: int
    accumulation: int
    gradient_checkpointing: bool
    watched_pid: int
    """Id of the GPU worker's process; the gang exits when that process ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GangOutcome:
    """How a gang ended."""

    kind: Literal["finished", "stopped", "out of memory", "diverged", "error"]
    detail: str = ""
    step: int = 0
    eval_loss: float | None = None
    stopped_early: bool = False
    kept_step: int = 0
    """Step whose weights are kept."""
    log: list[dict[str, int | float | str]] = field(default_factory=list)
    """Metrics of every logged step, over all attempts; the first entry is the base model's evaluation."""
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
    """Write the outcome unless another process already has; later failures are only consequences of the first."""
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
