"""A long workload without a model: counts to a number, with checkpoints. For tests of the protocol."""

import os
import signal
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import polars as pl

from gpu_jobs.errors import ItemError, WorkDiedError
from gpu_jobs.workloads.base import Item, LongWorkload, Params, Row, Session


class MarathonParams(Params):
    steps: int = 5
    step_s: float = 0.01
    save_steps: int = 1


class Marathon(LongWorkload):
    """Items named `die-…` lose their processes, `die-late-…` after a checkpoint; `refuse-…` and `kill-…`."""

    params_model: ClassVar[type[Params]] = MarathonParams
    columns: ClassVar[dict[str, Any]] = {"steps": pl.Int64, "starts": pl.Int64}

    def work(self, loaded: Item, session: Session) -> Sequence[Row] | ItemError | None:
        name = loaded["item"]
        prefix = f"checkpoints/{session.index}/"
        done = sum(1 for _ in session.store.list(f"{prefix}step"))
        start = sum(1 for _ in session.store.list(f"{prefix}start"))
        session.store.create(f"{prefix}start-{start:04d}", os.urandom(8))
        if name.startswith("refuse"):
            return ItemError("diverged: as it always does")
        unsaved: list[int] = []
        for step in range(done, self.params.steps):
            if session.is_stopping:
                self._save(session, prefix, unsaved)
                return None
            if name.startswith("die-now"):
                raise WorkDiedError("a process died without a word")
            time.sleep(self.params.step_s)
            unsaved.append(step)
            session.report(f"step {step + 1} of {self.params.steps}")
            if len(unsaved) == self.params.save_steps:
                self._save(session, prefix, unsaved)
            if name.startswith("die-late"):
                raise WorkDiedError("a process died without a word")
            if name.startswith("kill") and step == done:
                os.kill(os.getpid(), signal.SIGKILL)
        return [{"steps": self.params.steps, "starts": start + 1}]

    def _save(self, session: Session, prefix: str, unsaved: list[int]) -> None:
        for step in unsaved:
            session.store.create(f"{prefix}step-{step:04d}", os.urandom(8))
        unsaved.clear()
        session.report("saved", checkpoint=True)
