"""Tokenises texts into packed blocks of tokens, once for all trainings on them."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
from pydantic import Field

from gpu_jobs.dataset.sources import Source, input_cache, local_copy
from gpu_jobs.errors import ItemError
from gpu_jobs.workloads.base import Item, Params, Row, Workload
from gpu_jobs.workloads.engines.base import ModelSpec
from gpu_jobs.workloads.text.base import MODEL, ModelName, digest, fill, load_tokenizer
from gpu_jobs.workloads.training.prepared import TRAIN, VALIDATION
from gpu_jobs.workloads.weights import find_weights

_PARTS = 10_000


class PrepareParams(Params):
    """How texts are tokenised and split."""

    model: ModelName = Field(
        default="smollm2-135m-instruct", title="Model", description=f"Model whose tokenizer is used: {MODEL}"
    )
    text: str = Field(
        default="{text}",
        title="Text",
        description="The training text of each row of a table; {name} stands for the value in column `name`",
    )
    block: int = Field(
        default=256, ge=2, title="Block, tokens", description="Texts are joined and cut into blocks of this many tokens"
    )
    validation_share: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        title="Validation share",
        description="Share of the texts used for validation; the id of a text decides",
    )


class Prepare(Workload):
    """Reads one text per table row or per .txt or .md file; publishes blocks with columns `split` and `tokens`."""

    params: PrepareParams
    params_model = PrepareParams
    columns: ClassVar[dict[str, Any]] = {"split": pl.String, "tokens": pl.List(pl.Int32)}
    suffixes = (".txt", ".md")
    micro_batch = batch_items = 256

    def items(self, sources: Iterable[Source]) -> Iterator[Item]:
        """Yield one item per text, with the text itself or the address of its file.

        Raises:
            RefusedError: a row lacks a column that the template names.
        """
        for source in sources:
            is_file = bool(source.uri) and not any(f"{{{name}}}" in self.params.text for name in source.columns)
            text = "" if is_file else fill(self.params.text, source, "text")
            yield {
                "item": source.id,
                "weight": float(len(text) + 1),
                "fingerprint": source.fingerprint or digest(text),
                "text": text,
                "uri": source.uri if is_file else "",
            }

    def setup(self, device: str) -> None:
        weights = find_weights(self.params.model)
        self.facts["model"] = f"{self.params.model} ({weights.digest})"
        spec = ModelSpec(name=self.params.model, folder=weights.folder, device=device, precision="fp32")
        self._tokenizer = load_tokenizer(spec)

    def load(self, item: Item) -> tuple[str, str]:
        text = item["text"]
        if item["uri"]:
            path = local_copy(item["uri"], input_cache(), expected=item["fingerprint"])
            text = Path(path).read_text(encoding="utf-8")
        if not text.strip():
            raise ItemError("the text is empty")
        return self._split(item["item"]), text

    def infer(self, inputs: Sequence[tuple[str, str]]) -> Sequence[Sequence[Row] | ItemError]:
        found = self._tokenizer([text for _, text in inputs], add_special_tokens=False, verbose=False)["input_ids"]
        end = [self._tokenizer.eos_token_id] if self._tokenizer.eos_token_id is not None else []
        return [[{"split": split, "tokens": [*tokens, *end]}] for (split, _), tokens in zip(inputs, found, strict=True)]

    def finish(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Join the texts of each split in item order and cut them into blocks; an incomplete last block is dropped."""
        tokens = rows.select("split", "tokens").explode("tokens", empty_as_null=False)
        placed = tokens.with_columns(block=pl.int_range(pl.len()).over("split") // self.params.block)
        blocks = placed.group_by("split", "block", maintain_order=True).agg("tokens")
        return blocks.filter(pl.col("tokens").list.len() == self.params.block)

    def _split(self, item: str) -> str:
        part = int.from_bytes(hashlib.sha256(item.encode()).digest()[:4], "big") % _PARTS
        return VALIDATION if part < self.params.validation_share * _PARTS else TRAIN
