"""A sweep of fine-tunings: each item is one training with its own hyperparameters, on all GPUs of a GPU worker."""

import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import polars as pl
from pydantic import Field, ValidationError

from gpu_jobs.dataset.sources import Source
from gpu_jobs.errors import ItemError, RefusedError, WorkloadImportError
from gpu_jobs.ledger import keys
from gpu_jobs.settings import Settings
from gpu_jobs.workloads.base import Item, LongWorkload, Row, Session
from gpu_jobs.workloads.batch_size import BatchSize
from gpu_jobs.workloads.engines.precision import describe_device
from gpu_jobs.workloads.text.base import digest
from gpu_jobs.workloads.training.card import model_card
from gpu_jobs.workloads.training.checkpoints import upload_folder
from gpu_jobs.workloads.training.gang_files import MODEL, GangOutcome
from gpu_jobs.workloads.training.gang_supervisor import GangSupervisor, TrainingSetup
from gpu_jobs.workloads.training.metrics import METRIC_COLUMNS
from gpu_jobs.workloads.training.prepared import Prepared, fetch
from gpu_jobs.workloads.training.settings import TrainingParams
from gpu_jobs.workloads.weights import Weights, find_weights

_NO_LIMIT = 1 << 30
"""The largest micro-batch at first; it shrinks when memory runs out."""
_TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.jinja")


class FineTuneParams(TrainingParams):
    """Hyperparameters that all trainings of a sweep share unless their item sets them, and the training data."""

    data: str = Field(title="Data", description="Manifest published by the workload `prepare`: …/manifests/….json")


class Training(NamedTuple):
    """One loaded item."""

    name: str
    params: FineTuneParams


class FineTune(LongWorkload):
    """Trains one model per row of a table; a row has an id and the hyperparameters in which this training differs."""

    params: FineTuneParams
    params_model = FineTuneParams
    columns: ClassVar[dict[str, Any]] = {
        "eval_loss": pl.Float64,
        "eval_loss_before": pl.Float64,
        "train_loss": pl.Float64,
        "steps": pl.Int64,
        "kept_step": pl.Int64,
        "stopped_early": pl.Boolean,
        "tokens": pl.Int64,
        "seconds": pl.Float64,
        "processes": pl.Int64,
        "precision": pl.String,
        "model": pl.String,
        "model_sha256": pl.String,
        "sample_before": pl.String,
        "sample_after": pl.String,
        "settings": pl.String,
        "notes": pl.List(pl.String),
        "curve": pl.List(pl.Struct(METRIC_COLUMNS)),
    }

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.num_gpus = params.gpus

    def items(self, sources: Iterable[Source]) -> Iterator[Item]:
        """Yield one item per row.

        Raises:
            RefusedError: a column is not a hyperparameter, or a value is not valid.
        """
        for source in sources:
            settings = {name: value for name, value in source.columns.items() if name != "id" and value is not None}
            try:
                FineTuneParams.model_validate({**self.params.model_dump(), **settings})
            except ValidationError as error:
                first = error.errors()[0]
                name = ".".join(map(str, first["loc"]))
                raise RefusedError("dataset", f"row '{source.id}': {name}: {first['msg']}") from error
            text = json.dumps(settings, sort_keys=True)
            yield {"item": source.id, "weight": 1.0, "fingerprint": digest(text), "settings": text}

    def setup(self, device: str) -> None:
        """Download the base model and the data; an item with another base model downloads it in `work`."""
        found = describe_device(device, 1)
        self.facts["device"] = found.name
        self._device = found
        self._processes = Settings().gang_size or _count_gpus(device)
        self.batch_size = BatchSize(_NO_LIMIT)
        find_weights(self.params.model)
        fetch(self.params.data)

    def load(self, item: Item) -> Training:
        return Training(
            item["item"], FineTuneParams.model_validate({**self.params.model_dump(), **json.loads(item["settings"])})
        )

    def work(self, loaded: Training, session: Session) -> Sequence[Row] | ItemError | None:
        began = time.monotonic()
        assert self.batch_size is not None
        params, data = loaded.params, fetch(loaded.params.data)
        _check_enough_data(params, data)
        try:
            weights = find_weights(params.model)
        except WorkloadImportError as error:
            return ItemError(str(error))
        setup = TrainingSetup(
            device=self._device.kind,
            processes=self._processes,
            precision=self._precision(params),
            model_folder=weights.folder,
            data_folder=data.folder,
        )
        self.facts["model"] = f"{params.model} ({weights.digest})"
        with tempfile.TemporaryDirectory(prefix="fanfold-train-") as folder:
            supervisor = GangSupervisor(params, setup, session, self.batch_size, Path(folder))
            outcome = supervisor.run()
            if outcome is None:
                return None
            session.report("storing the model")
            finished = _FinishedTraining(loaded, setup, outcome, supervisor, weights, data)
            return [_row(finished, session, time.monotonic() - began)]

    def finish(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Add the column `rank`; 1 is the lowest validation loss."""
        return rows.with_columns(rank=pl.col("eval_loss").rank("ordinal").cast(pl.Int64))

    def _precision(self, params: FineTuneParams) -> Any:
        if params.precision != "auto":
            return params.precision
        if self._device.kind == "cpu":
            return "fp32"
        return "bf16" if self._device.has_bf16 else "fp16"


class _FinishedTraining(NamedTuple):
    """A finished training with everything that its row and model card need."""

    training: Training
    setup: TrainingSetup
    outcome: GangOutcome
    supervisor: GangSupervisor
    weights: Weights
    data: Prepared


def _check_enough_data(params: FineTuneParams, data: Prepared) -> None:
    if data.num_train < params.batch:
        raise ItemError(f"{data.num_train} blocks of training data are fewer than one batch of {params.batch}")


def _count_gpus(device: str) -> int:
    if device == "cpu":
        return 1
    import torch

    return torch.cuda.device_count()


def _row(finished: _FinishedTraining, session: Session, seconds: float) -> Row:
    params, outcome = finished.training.params, finished.outcome
    key, sha256 = _store_model(finished, session)
    losses = [row["loss"] for row in outcome.log if "loss" in row]
    return {
        "eval_loss": outcome.eval_loss,
        "eval_loss_before": outcome.log[0]["eval_loss"],
        "train_loss": losses[-1] if losses else None,
        "steps": outcome.step,
        "kept_step": outcome.kept_step,
        "stopped_early": outcome.stopped_early,
        "tokens": outcome.step * params.batch * finished.data.block,
        "seconds": seconds,
        "processes": finished.supervisor.batch_split.processes,
        "precision": finished.setup.precision,
        "model": key,
        "model_sha256": sha256,
        "sample_before": outcome.log[0]["sample"],
        "sample_after": outcome.sample,
        "settings": params.model_dump_json(),
        "notes": finished.supervisor.notes,
        "curve": [{name: row.get(name) for name in METRIC_COLUMNS} for row in outcome.log],
    }


def _set_base_model_name(folder: Path, model: str) -> None:
    """Let an adapter refer to its base model by name, not by its folder on this machine."""
    path = folder / "adapter_config.json"
    if path.exists():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": model}, indent=2))


def _store_model(finished: _FinishedTraining, session: Session) -> tuple[str, str]:
    """Upload model or adapter, tokenizer and card; return their prefix in the store and the weights' checksum."""
    training, data = finished.training, finished.data
    folder = finished.supervisor.out / MODEL
    for pattern in _TOKENIZER_FILES:
        for path in finished.setup.model_folder.glob(pattern):
            shutil.copy(path, folder)
    _set_base_model_name(folder, training.params.model)
    card = model_card(
        training.name,
        training.params,
        finished.setup,
        finished.outcome,
        finished.supervisor.batch_split,
        weights=finished.weights.digest,
        data=training.params.data,
        block=data.block,
    )
    (folder / "README.md").write_text(card)
    prefix = keys.model(session.index, uuid.uuid4().hex[:12])
    files = list(upload_folder(session.store, folder, lambda name: f"{prefix}/{name}"))
    weights = [file.sha256 for file in files if file.name.endswith(".safetensors")]
    return prefix, weights[0] if len(weights) == 1 else digest("".join(weights))
