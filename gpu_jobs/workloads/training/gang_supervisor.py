"""One attempt at a fine-tuning, from the GPU worker's side: start a gang, watch it, keep what it saves and measures."""

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
from gpu_jobs.workloads.training.gang_files import BEST, Job, Outcome, read_outcome
from gpu_jobs.workloads.training.metrics import News
from gpu_jobs.workloads.training.settings import Shares, TrainingParams, share_out

_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a training finds where it runs."""

    device: Literal["cpu", "cuda"]
    processes: int
    """One per GPU; on a CPU as many as the machine's operator says."""
    precision: Literal["fp32", "bf16", "fp16"]
    model_folder: Path
    data_folder: Path


class Attempt:
    """Trains one model until it is finished, or until the GPU worker has to leave."""

    def __init__(
        self,
        params: TrainingParams,
        place: Place,
        session: Session,
        size: BatchSize,
        folder: Path,
        *,
        start: Callable[[Job, int], Gang] = Gang,
    ) -> None:
        """`size`: the most blocks that a GPU takes at once, which is learned. `folder`: empty, for files of its own."""
        self._params = params
        self._place = place
        self._session = session
        self._size = size
        self._folder = folder
        self._checkpoints = Checkpoints(session.store, session.index)
        self._gradient_checkpointing = params.gradient_checkpointing
        self._start = start
        self._starts = 0
        self.out = folder
        """Where the last gang has written."""
        self.shares = Shares(1, 1, 1)

    @property
    def notes(self) -> list[str]:
        return self._checkpoints.notes

    def run(self) -> Outcome | None:
        """How it finished; None if it was left at a checkpoint.

        Raises:
            ItemError: it cannot be trained: it diverges, does not fit, or raises.
            WorkDiedError: a process of the gang died without a word.
        """
        while (outcome := self._train()).kind == "out of memory":
            self._make_smaller(outcome.detail)
        match outcome.kind:
            case "finished":
                return outcome
            case "stopped":
                return None
            case "diverged":
                raise DivergedError(outcome.detail)
            case _:
                raise ItemError(outcome.detail)

    def _train(self) -> Outcome:
        """One gang, from its start to its end."""
        self._starts += 1
        self.out = self._folder / str(self._starts)
        self.out.mkdir()
        self._session.tell("looking for a checkpoint")
        step = self._checkpoints.restore(self.out / "resumed")
        if (best := self.out / "resumed" / BEST).exists():
            best.rename(self.out / BEST)
        most = min(self._size.value, self._params.micro_batch or self._params.batch)
        self.shares = share_out(self._params.batch, self._place.processes, most)
        self._session.tell(f"starting {self.shares.processes} processes at step {step}")
        gang = self._start(self._job(step), self.shares.processes)
        uploader = Uploader(self._checkpoints, self.out, self.shares.processes, step)
        news = News(self.out, self._session)
        try:
            while gang.is_running:
                if self._session.is_stopping and not news.has_steps:
                    return Outcome(kind="stopped", step=step)
                if self._session.is_stopping:
                    gang.ask_to_leave()
                self._note(news, has_checkpoint=uploader.look())
                time.sleep(_POLL_S)
        finally:
            code = gang.end()
        outcome = read_outcome(self.out)
        is_finished = outcome is not None and outcome.kind == "finished"
        self._note(news, has_checkpoint=not is_finished and uploader.finish())
        news.flush()
        if outcome is None:
            raise WorkDiedError(f"a training process died without a word; torchrun exited {code}, its log tells more")
        return outcome

    def _note(self, news: News, *, has_checkpoint: bool) -> None:
        news.tell()
        if has_checkpoint:
            self._session.tell(news.doing, checkpoint=True)

    def _job(self, step: int) -> Job:
        return Job(
            params=self._params,
            model_folder=str(self._place.model_folder),
            data_folder=str(self._place.data_folder),
            out=str(self.out),
            resume_from=str(self.out / "resumed") if step else "",
            device=self._place.device,
            precision=self._place.precision,
            micro_batch=self.shares.micro_batch,
            accumulation=self.shares.accumulation,
            gradient_checkpointing=self._gradient_checkpointing,
            watched_pid=os.getpid(),
        )

    def _make_smaller(self, detail: str) -> None:
        """Fewer blocks at once and more of them one after another, so that the batch stays; then less to remember."""
        if self.shares.micro_batch > 1:
            self._size.start_at(self.shares.micro_batch // 2)
            self.notes.append(f"memory ran out with {self.shares.micro_batch} blocks at once")
        elif not self._gradient_checkpointing:
            self._gradient_checkpointing = True
            self.notes.append("memory ran out with one block at once; gradients are checkpointed")
        else:
            raise DoesNotFitError(
                f"{self._params.model} does not fit: memory ran out with one block at once and checkpointed gradients; "
                f"use a smaller model or block, LoRA, more GPUs with fsdp, or a larger GPU ({detail})"
            )
