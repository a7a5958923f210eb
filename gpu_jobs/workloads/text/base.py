"""Common base of all text workloads: loading the model, turning table rows into texts, estimating their weight."""

import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from gpu_jobs.dataset.sources import Source
from gpu_jobs.errors import ItemError, ModelTooLargeError, RefusedError, WorkloadImportError
from gpu_jobs.workloads.base import Item, Params, Row, Workload
from gpu_jobs.workloads.batch_size import free_memory, is_out_of_memory
from gpu_jobs.workloads.engines.base import ModelSpec
from gpu_jobs.workloads.engines.precision import Precision, describe_device, memory_gib, next_lower
from gpu_jobs.workloads.weights import find_weights, is_code_trusted, measure_weights

_IN_BRACES = re.compile(r"\{([^{}\n]+)\}")
_LOOKS_LIKE_A_COLUMN = re.compile(r"\w+")
BYTES_PER_TOKEN = 4
_MAX_TOO_LARGE = 6
"""Give up after this many single texts that did not fit; each text is tried twice."""

MODEL = (
    "Hugging Face id, id@revision, folder, gs://bucket/prefix, or a package: smollm2-135m-instruct, all-minilm-l6-v2"
)
ModelName = Annotated[str, Field(min_length=1)]


class ModelParams(Params):
    """The model, and how it is loaded."""

    model: ModelName = Field(title="Model", description=MODEL)
    precision: Precision = Field(
        default="auto",
        title="Precision",
        description="auto: 32 bits on a CPU, 16 on a GPU, fewer if the model does not fit. With any other value, all "
        "GPU workers use the same precision",
    )
    gpus_per_model: int = Field(
        default=1, ge=1, le=16, title="GPUs per model", description="Number of GPUs that one copy of the model spans"
    )
    trust_remote_code: bool = Field(
        default=False,
        title="Trust the model's code",
        description="Run the Python code that comes with the model; refused unless FANFOLD_TRUSTED_MODELS names it",
    )


class ModelWorkload(Workload):
    """Runs one language model, and reloads it with fewer bits when memory runs out."""

    params: ModelParams
    load_threads = 1  # tokenizers are not thread-safe

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.num_gpus = params.gpus_per_model
        self._has_answered = False
        self._num_too_large = 0
        if params.trust_remote_code and not is_code_trusted(params.model):
            raise RefusedError(
                "params.trust_remote_code",
                f"'{params.model}' is not in FANFOLD_TRUSTED_MODELS of this machine; add it there to run its code",
            )

    def gpu_memory_gib(self) -> float:
        return memory_gib(self.params.precision, *measure_weights(self.params.model))

    def setup(self, device: str) -> None:
        weights = find_weights(self.params.model)
        self.facts["device"] = describe_device(device, self.num_gpus).name
        self.facts["model"] = f"{self.params.model} ({weights.digest})"
        self._spec = ModelSpec(
            name=self.params.model,
            folder=weights.folder,
            device=device,
            precision=self.params.precision,
            num_gpus=self.num_gpus,
            trust_remote_code=self.params.trust_remote_code,
        )
        self._tokenizer = load_tokenizer(self._spec)
        self.open_model(self._spec)

    @abstractmethod
    def open_model(self, spec: ModelSpec) -> None:
        """Load the model, and set `facts`, `batch_size` and `micro_batch` to match it."""

    @abstractmethod
    def close_model(self) -> None:
        """Release the model's memory."""

    @abstractmethod
    def answer(self, inputs: Sequence[Any]) -> Sequence[Sequence[Row] | ItemError]:
        """Compute what `infer` returns; raises an out-of-memory error if not even one text fits."""

    def infer(self, inputs: Sequence[Any]) -> Sequence[Sequence[Row] | ItemError]:
        """Compute the rows of a window. If not even one text fits, the model is reloaded with fewer bits.

        Raises:
            ModelTooLargeError: with the fewest bits allowed, none of the first texts fits.
        """
        while True:
            try:
                rows = self.answer(inputs)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                precision = self.facts["precision"].partition(":")[0]
                lower = next_lower(precision) if self.params.precision == "auto" else ""
                if not lower:
                    self._count_too_large(len(inputs), precision)
                    raise
            else:
                self._has_answered = True
                return rows
            self._reload(lower, f"memory ran out in {precision}, at one text at a time")

    def teardown(self) -> None:
        self.close_model()

    def _count_too_large(self, num_inputs: int, precision: str) -> None:
        """One text that does not fit alone may be too long; if none of the first texts fits, the GPU is too small."""
        self._num_too_large += num_inputs == 1
        if self._num_too_large >= _MAX_TOO_LARGE and not self._has_answered:
            message = f"model '{self.params.model}' in {precision} runs out of memory at one text at a time"
            raise ModelTooLargeError(f"{message}; take a larger GPU")

    def _reload(self, precision: Any, reason: str) -> None:
        self.close_model()
        free_memory()
        self.open_model(replace(self._spec, precision=precision))
        self.facts["precision"] = f"{precision}: {reason}"


class TextParams(ModelParams):
    """The model, and the template of its input text."""

    text: str = Field(
        default="{text}",
        title="Text",
        description="The model's input for each row of the table; {name} stands for the value in column `name`",
    )


class TextWorkload(ModelWorkload):
    """Runs the texts of a table through one language model, in windows of consecutive rows that finish together."""

    params: TextParams

    def items(self, sources: Iterable[Source]) -> Iterator[Item]:
        """Yield one item per row; its weight is its number of tokens, estimated without a tokenizer."""
        for source in sources:
            text = fill(self.params.text, source, "params.text")
            yield {
                "item": source.id,
                "weight": self.weight(text),
                "fingerprint": source.fingerprint or digest(text),
                "text": text,
            }

    def weight(self, text: str) -> float:
        """Estimate the cost of one text, in input tokens."""
        return 1 + len(text.encode()) / BYTES_PER_TOKEN


def load_tokenizer(spec: ModelSpec) -> Any:
    from transformers import AutoTokenizer

    auto: Any = AutoTokenizer
    try:
        return auto.from_pretrained(spec.folder, trust_remote_code=spec.trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        raise WorkloadImportError(f"model '{spec.name}' has no tokenizer that can be loaded: {error}") from error


def fill(template: str, source: Source, field: str) -> str:
    """Fill a template with a row's values; null becomes an empty string. Braces around other text are kept.

    Raises:
        RefusedError: with `field`, if the template names no column or a missing one; with "dataset", if the source
            is not a row of a table.
    """
    if source.columns.keys() == {"uri"}:
        raise RefusedError(
            "dataset", f"'{source.id}' is no table: name .parquet, .csv or .jsonl files, or a glob of them"
        )
    named = _IN_BRACES.findall(template)
    missing = [name for name in named if name not in source.columns and _LOOKS_LIKE_A_COLUMN.fullmatch(name)]
    known = [*source.columns]
    if missing:
        raise RefusedError(field, f"row '{source.id}' has no column '{missing[0]}'; the dataset's columns are {known}")
    if not any(name in source.columns for name in named):
        raise RefusedError(field, f"{template!r} would be the same for every row: name a column, as {{{known[-1]}}}")

    def value(match: re.Match[str]) -> str:
        found = source.columns.get(match[1], match[0])
        return "" if found is None else str(found)

    return _IN_BRACES.sub(value, template)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
