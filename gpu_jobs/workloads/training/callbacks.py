"""Trainer callbacks that run in every process of the gang."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from gpu_jobs.errors import DivergedError
from gpu_jobs.workloads.training.gang_files import BEST, METRICS, SAVED, STOP, STOP_AT, GangSpec


class StopWhenRequested(TrainerCallback):
    """Makes all processes stop at the end of the same step, without extra communication.

    The first process writes the number of the next step before it begins that step. No other process can finish that
    step without the first one's gradients, so by then all of them see the number.
    """

    def __init__(self, spec: GangSpec) -> None:
        self._stop = Path(spec.out, STOP)
        self._stop_at = Path(spec.out, STOP_AT)

    @override
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if self._stop_at.exists():
            if state.global_step >= int(self._stop_at.read_text()):
                control.should_save = control.should_training_stop = True
        elif state.is_world_process_zero and self._stop.exists():
            temp = self._stop_at.with_suffix(".temp")
            temp.write_text(str(state.global_step + 1))
            temp.replace(self._stop_at)
        return control

    @property
    def is_stop_requested(self) -> bool:
        return self._stop_at.exists()


class MarkCheckpointSaved(TrainerCallback):
    """Marks that this process has written its part of a checkpoint; a checkpoint is complete with all marks."""

    def __init__(self, spec: GangSpec, rank: int) -> None:
        self._out = Path(spec.out)
        self._rank = rank

    @override
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = self._out / f"checkpoint-{state.global_step}"
        (folder / f"{SAVED}{self._rank}").touch()


class KeepBestWeights(TrainerCallback):
    """Keeps the weights with the lowest validation loss so far, and copies them into each checkpoint."""

    def __init__(self, spec: GangSpec, save: Callable[[str], None]) -> None:
        """`save` writes the current weights into a folder; all processes must call it together."""
        self._out = Path(spec.out)
        self._save = save

    @override
    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        before = math.inf if state.best_metric is None else state.best_metric
        if state.global_step == 0 or (metrics or {})["eval_loss"] >= before:
            return
        new = self._out / f"{BEST}-new"
        self._save(str(new))
        if state.is_world_process_zero:
            shutil.rmtree(self._out / BEST, ignore_errors=True)
            new.replace(self._out / BEST)

    @override
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero and (self._out / BEST).exists():
            folder = self._out / f"checkpoint-{state.global_step}" / BEST
            shutil.copytree(self._out / BEST, folder, copy_function=os.link)


class RecordMetrics(TrainerCallback):
    """Appends one line of metrics per logged step; raises DivergedError when a loss is NaN or infinite."""

    def __init__(self, spec: GangSpec, tokens_per_step: int) -> None:
        self._path = Path(spec.out, METRICS)
        self._tokens_per_step = tokens_per_step
        self._step, self._at = 0, 0.0
        self.sample_before = ""
        """The base model's answer to the prompt, stored with the evaluation at step 0."""

    @override
    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self._at:
            self._step, self._at = state.global_step, time.monotonic()

    @override
    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._at = 0.0  # exclude evaluation from tokens/s: the clock restarts with the next step

    @override
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        logs = logs or {}
        for name in ("loss", "eval_loss", "grad_norm"):
            if name in logs and not math.isfinite(logs[name]):
                raise DivergedError(
                    f"diverged: the {name.replace('_', ' ')} is {logs[name]} at step {state.global_step}, with a "
                    f"learning rate of {args.learning_rate:g}"
                )
        if not {"loss", "eval_loss"} & logs.keys():
            return
        row = {"step": state.global_step} | {name: logs[name] for name in logs.keys() & _SHOWN}
        if "loss" in logs and self._at:
            now = time.monotonic()
            row["tokens_per_s"] = self._tokens_per_step * (state.global_step - self._step) / (now - self._at)
            self._step, self._at = state.global_step, now
            row |= _gpu_use(args)
        state.log_history[-1].update(row)  # so that it is part of each checkpoint
        if state.global_step == 0:
            entry: dict[str, Any] = state.log_history[-1]
            entry["sample"] = self.sample_before
        if state.is_world_process_zero:
            with self._path.open("a") as file:
                file.write(json.dumps({"total": state.max_steps, **row}) + "\n")


_SHOWN = {"loss", "eval_loss", "learning_rate", "grad_norm"}


def _gpu_use(args: TrainingArguments) -> dict[str, float]:
    """Memory and utilisation of this process's GPU; empty on a CPU, and without values that the driver lacks."""
    import torch

    if args.device.type != "cuda":
        return {}
    found = {"gpu_memory_gib": torch.cuda.max_memory_allocated() / 2**30}
    try:
        found["gpu_percent"] = float(torch.cuda.utilization())
    except (RuntimeError, ImportError):  # nvidia-ml-py is missing, or a sandbox hides the driver
        return found
    return found
