"""Reports a gang's metrics to the GPU worker's heartbeat, and writes them into the store."""

import io
import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from gpu_jobs.ledger import keys
from gpu_jobs.workloads.base import Session
from gpu_jobs.workloads.training.gang_files import METRICS

METRIC_COLUMNS: dict[str, Any] = {
    "step": pl.Int64,
    "loss": pl.Float64,
    "eval_loss": pl.Float64,
    "learning_rate": pl.Float64,
    "grad_norm": pl.Float64,
    "tokens_per_s": pl.Float64,
    "gpu_percent": pl.Float64,
    "gpu_memory_gib": pl.Float64,
}
"""Columns of a metrics file with one row per logged step; values not measured at that step are null."""
_FLUSH_S = 5.0


class MetricsReporter:
    """Follows the metrics file that one gang appends to."""

    def __init__(self, out: Path, session: Session) -> None:
        self._path = out / METRICS
        self._session = session
        self._read_bytes = 0
        self._rows: list[dict[str, Any]] = []
        self._flushed_at = time.monotonic()
        self._nonce = uuid.uuid4().hex[:8]
        self._newest: dict[str, Any] = {}
        self.doing = ""
        self.has_steps = False
        """At least one training step was logged, so that stopping without a checkpoint would lose work."""

    def report(self) -> None:
        """Report progress if there are new metrics; write them into the store every `_FLUSH_S` seconds."""
        if rows := self._read():
            self._rows += rows
            for row in rows:
                self._newest |= row
                self.has_steps |= "loss" in row
            self.doing = describe_progress(self._newest)
            self._session.report(self.doing)
        if time.monotonic() - self._flushed_at > _FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write the metrics since the last flush into the store."""
        self._flushed_at = time.monotonic()
        if not self._rows:
            return
        buffer = io.BytesIO()
        pl.DataFrame(self._rows, schema=METRIC_COLUMNS).write_parquet(buffer)
        key = keys.metrics(self._session.index, self._rows[-1]["step"], f"{self._nonce}{len(self._rows)}")
        self._session.store.create(key, buffer.getvalue())
        self._rows = []

    def _read(self) -> list[dict[str, Any]]:
        """Read the complete lines that were appended since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read_bytes += len(whole) + len(newline)
        return [json.loads(line) for line in whole.splitlines()]


def describe_progress(newest: Mapping[str, Any]) -> str:
    """Progress as text, such as `step 12 of 100, loss 3.210, validation 3.400, 512 tokens/s`."""
    words = [f"step {newest['step']} of {newest['total']}" if newest["total"] else "measuring the base model"]
    words += [f"loss {newest['loss']:.3f}"] if "loss" in newest else []
    words += [f"validation {newest['eval_loss']:.3f}"] if "eval_loss" in newest else []
    words += [f"{newest['tokens_per_s']:,.0f} tokens/s"] if "tokens_per_s" in newest else []
    return ", ".join(words)
