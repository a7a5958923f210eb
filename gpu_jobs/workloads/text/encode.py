"""Workloads that embed or classify texts with an encoder model: one pass over each text."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field

from gpu_jobs.errors import ItemError
from gpu_jobs.workloads.base import Item, Params, Row
from gpu_jobs.workloads.engines.base import ModelSpec
from gpu_jobs.workloads.engines.encoder import ClassEncoder, Encoder, TokenizedText, VectorEncoder
from gpu_jobs.workloads.text.base import MODEL, ModelName, TextParams, TextWorkload

DEFAULT_MODEL = "all-minilm-l6-v2"
_WINDOW = {"cpu": 512, "cuda": 16384}


class EmbedParams(TextParams):
    """Parameters of embedding: each text becomes a vector."""

    task: Literal["embed"] = Field(default="embed", title="Task", description="Turn each text into a vector")
    model: ModelName = Field(default=DEFAULT_MODEL, title="Model", description=MODEL)
    pooling: Literal["auto", "mean", "first", "last"] = Field(
        default="auto",
        title="Pooling",
        description="How token vectors become one text vector; auto: as the model's configuration says, else the mean",
    )


class ClassifyParams(TextParams):
    """Parameters of classification, by a model trained for it."""

    task: Literal["classify"] = Field(default="classify", title="Task", description="Classify each text")
    top_k: int = Field(
        default=3, ge=1, le=100, title="Labels", description="How many of the most probable labels are kept"
    )


class EncoderWorkload(TextWorkload):
    """Sorts the texts of a window by length and batches them by padded tokens; rows stay in item order."""

    batch_items = _WINDOW["cpu"]

    def load(self, item: Item) -> TokenizedText:
        """Tokenise a text; one longer than the model's context is cut, and its row has `is_truncated`."""
        if not item["text"].strip():
            raise ItemError("the text is empty")
        return self._encoder.tokenize(item["text"])

    def open_model(self, spec: ModelSpec) -> None:
        self._encoder = self.open_encoder(spec)
        self.facts.update(self._encoder.facts)
        self.batch_size = self._encoder.batch_size
        self.micro_batch = _WINDOW[spec.device.partition(":")[0]]

    @abstractmethod
    def open_encoder(self, spec: ModelSpec) -> Encoder:
        """Load the encoder for `answer`."""

    def close_model(self) -> None:
        self._encoder.close()

    def answer(self, inputs: Sequence[TokenizedText]) -> Sequence[Sequence[Row] | ItemError]:
        results = self._encoder.encode(inputs)
        return [[self._row(text, result)] for text, result in zip(inputs, results, strict=True)]

    def _row(self, text: TokenizedText, result: Any) -> Row:
        return {"tokens": len(text.ids), "is_truncated": text.is_truncated, **self.result(result)}

    @abstractmethod
    def result(self, result: Any) -> Row:
        """The columns that are specific to this workload."""


class Embed(EncoderWorkload):
    """Turns each text into one vector."""

    params: EmbedParams
    params_model: ClassVar[type[Params]] = EmbedParams
    columns: ClassVar[Mapping[str, pl.DataType | type[pl.DataType]]] = {
        "embedding": pl.List(pl.Float32),  # of length 1, so that a dot product is the cosine
        "tokens": pl.Int32,
        "is_truncated": pl.Boolean,  # the text was longer than the model's context
    }

    def open_encoder(self, spec: ModelSpec) -> Encoder:
        return VectorEncoder(spec, self._tokenizer, self.params.pooling)

    def result(self, result: Any) -> Row:
        return {"embedding": result}


class Classify(EncoderWorkload):
    """Finds the most probable classes of each text."""

    params: ClassifyParams
    params_model: ClassVar[type[Params]] = ClassifyParams
    columns: ClassVar[Mapping[str, pl.DataType | type[pl.DataType]]] = {
        "label": pl.String,  # the most probable label
        "score": pl.Float32,
        "labels": pl.List(pl.Struct({"label": pl.String, "score": pl.Float32})),
        "tokens": pl.Int32,
        "is_truncated": pl.Boolean,
    }

    def open_encoder(self, spec: ModelSpec) -> Encoder:
        return ClassEncoder(spec, self._tokenizer, self.params.top_k)

    def result(self, result: Any) -> Row:
        return {**result[0], "labels": result}
