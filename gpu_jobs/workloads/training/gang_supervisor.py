"""The GPU worker's side of one fine-tuning: start a gang, watch it, and store its checkpoints and metrics."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpu_jobs.errors import DivergedError, DoesNotFitError, ItemError, WorkDiedError
from gpu_jobs.workloads.base import Session
from gpu_jobs.workloads.batch_size import BatchSize
from gpu_jobs.workloads.training.checkpoints import Checkpoints, Uploader
from gpu_jobs.workloads.training.gang import Gang
from gpu_jobs.workloads.training.gang_files import BEST, GangOutcome, GangSpec, read_outcome
from gpu_jobs.workloads.training.metrics import MetricsReporter
from gpu_jobs.workloads.training.settings import BatchSplit, TrainingParams, split_batch

_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """The hardware and the local folders that a training uses."""

    device: Literal["cpu", "cuda"]
    processes: int
    """Number of processes: one per GPU; on a CPU, the value of `FANFOLD_GANG_SIZE`."""
    precision: Literal["fp32", "bf16", "fp16"]
    model_folder: Path
    data_folder: Path


class GangSupervisor:
    """Trains one model until it is finished, or until the GPU worker must stop."""

    def __init__(
        self,
        params: TrainingParams,
        setup: TrainingSetup,
        session: Session,
        size: BatchSize,
        folder: Path,
        *,
        start: Callable[[GangSpec, int], Gang] = Gang,
    ) -> None:
        """`size` is the largest micro-batch in blocks, which shrinks when memory runs out; `folder` must be empty."""
        self._params = params
        self._setup = setup
        self._session = session
        self._size = size
        self._folder = folder
        self._checkpoints = Checkpoints(session.store, session.index)
        self._gradient_checkpointing = params.gradient_checkpointing
        self._start = start
        self._starts = 0
        self.out = folder
        """Folder that the latest gang writes to."""
        self.batch_split = BatchSplit(1, 1, 1)

    @property
    def notes(self) -> list[str]:
        return self._checkpoints.notes

    def run(self) -> GangOutcome | None:
        """Train to the end and return the outcome; None if the GPU worker must stop and the training can be resumed.

        Raises:
            ItemError: the training diverged, does not fit into memory, or raised an exception.
            WorkDiedError: a process of the gang died without writing an outcome.
        """
        while (outcome := self._train()).kind == "out of memory":
            self._reduce_memory(outcome.detail)
        match outcome.kind:
            case "finished":
                return outcome
            case "stopped":
                return None
            case "diverged":
                raise DivergedError(outcome.detail)
            case _:
                raise ItemError(outcome.detail)

    def _train(self) -> GangOutcome:
        """Run one gang from its start to its end."""
        self._starts += 1
        self.out = self._folder / str(self._starts)
        self.out.mkdir()
        self._session.report("looking for a checkpoint")
        step = self._checkpoints.restore(self.out / "resumed")
        if (best := self.out / "resumed" / BEST).exists():
            best.rename(self.out / BEST)
        most = min(self._size.value, self._params.micro_batch or self._params.batch)
        self.batch_split = split_batch(self._params.batch, self._setup.processes, most)
        self._session.report(f"starting {self.batch_split.processes} processes at step {step}")
        gang = self._start(self._spec(step), self.batch_split.processes)
        uploader = Uploader(self._checkpoints, self.out, self.batch_split.processes, step)
        metrics = MetricsReporter(self.out, self._session)
        try:
            while gang.is_running:
                if self._session.is_stopping and not metrics.has_steps:
                    return GangOutcome(kind="stopped", step=step)
                if self._session.is_stopping:
                    gang.request_stop()
                self._report(metrics, has_checkpoint=uploader.poll())
                time.sleep(_POLL_S)
        finally:
            code = gang.end()
        outcome = read_outcome(self.out)
        is_finished = outcome is not None and outcome.kind == "finished"
        self._report(metrics, has_checkpoint=not is_finished and uploader.finish())
        metrics.flush()
        if outcome is None:
            raise WorkDiedError(
                f"a training process died without reporting an error; torchrun exited with {code}, see the log"
            )
        return outcome

    def _report(self, metrics: MetricsReporter, *, has_checkpoint: bool) -> None:
        metrics.report()
        if has_checkpoint:
            self._session.report(metrics.doing, checkpoint=True)

    def _spec(self, step: int) -> GangSpec:
        return GangSpec(
            params=self._params,
            model_folder=str(self._setup.model_folder),
            data_folder=str(self._setup.data_folder),
            out=str(self.out),
            resume_from=str(self.out / "resumed") if step else "",
            device=self._setup.device,
            precision=self._setup.precision,
            micro_batch=self.batch_split.micro_batch,
            accumulation=self.batch_split.accumulation,
            gradient_checkpointing=self._gradient_checkpointing,
            watched_pid=os.getpid(),
        )

    def _reduce_memory(self, detail: str) -> None:
        """Halve the micro-batch, which doubles accumulation; at one block, turn on gradient checkpointing instead."""
        if self.batch_split.micro_batch > 1:
            self._size.start_at(self.batch_split.micro_batch // 2)
            self.notes.append(f"memory ran out with {self.batch_split.micro_batch} blocks at once")
        elif not self._gradient_checkpointing:
            self._gradient_checkpointing = True
            self.notes.append("memory ran out with one block at once; gradients are checkpointed")
        else:
            raise DoesNotFitError(
                f"{self._params.model} does not fit: memory ran out with one block at once and checkpointed gradients; "
                f"use a smaller model or block, LoRA, more GPUs with fsdp, or a larger GPU ({detail})"
            )
