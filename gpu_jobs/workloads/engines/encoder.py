"""Encoder models with transformers: tokenised texts in, one vector or the classes of each text out."""

import gc
import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_jobs.workloads.batch_size import Batches, BatchSize, free_memory
from gpu_jobs.workloads.engines.base import ModelSpec
from gpu_jobs.workloads.engines.loading import load_model

_AT_ONCE = {"cpu": (512, 8192), "cuda": (16384, 524288)}
"""Initial and maximum number of tokens per batch, padding included."""
_UNLIMITED = 1_000_000


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """One text as token ids."""

    ids: Sequence[int]
    is_truncated: bool
    """The text was cut because it is longer than the model's context."""


class Encoder:
    """One loaded encoder; subclasses choose the model class and turn its outputs into results."""

    auto = "AutoModel"

    def __init__(self, spec: ModelSpec, tokenizer: Any) -> None:
        import transformers

        self._tokenizer = tokenizer
        self._model, choice = load_model(spec, getattr(transformers, self.auto))
        self.max_tokens = _max_tokens(spec.folder, tokenizer, self._model.config)
        self._pad: int = tokenizer.pad_token_id or 0
        self.facts = {
            "engine": f"transformers {transformers.__version__}",
            "precision": f"{choice.precision}: {choice.reason}",
        }
        first, maximum = _AT_ONCE[spec.device.partition(":")[0]]
        self.batch_size = BatchSize(first, maximum=maximum)
        self._batches = Batches(self.batch_size, cost=lambda text: len(text.ids))

    def tokenize(self, text: str) -> TokenizedText:
        ids = self._tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        is_truncated = len(ids) == self.max_tokens < len(self._tokenizer(text, truncation=False)["input_ids"])
        return TokenizedText(ids, is_truncated)

    def encode(self, texts: Sequence[TokenizedText]) -> list[Any]:
        """Return the result of `head` for each text, in order; texts are sorted by length to save padding."""
        order = sorted(range(len(texts)), key=lambda index: (-len(texts[index].ids), index))
        outputs = self._batches.run(self._encode, [texts[index] for index in order])
        by_index = dict(zip(order, outputs, strict=True))
        return [by_index[index] for index in range(len(texts))]

    def close(self) -> None:
        del self._model
        gc.collect()
        free_memory()

    @abstractmethod
    def head(self, outputs: Any, mask: Any) -> list[Any]:
        """Return one result per row of the model's outputs; `mask` [rows, width] is 0 at padding."""

    def _encode(self, texts: Sequence[TokenizedText]) -> list[Any]:
        import torch

        width = len(texts[0].ids)  # the longest comes first
        rows = [[*text.ids, *[self._pad] * (width - len(text.ids))] for text in texts]
        masks = [[1] * len(text.ids) + [0] * (width - len(text.ids)) for text in texts]
        device = self._model.device
        with torch.inference_mode():
            mask = torch.tensor(masks, device=device)
            outputs = self._model(input_ids=torch.tensor(rows, device=device), attention_mask=mask)
            return self.head(outputs, mask)


class VectorEncoder(Encoder):
    """Returns a vector of length 1 for each text."""

    def __init__(self, spec: ModelSpec, tokenizer: Any, pooling: str) -> None:
        super().__init__(spec, tokenizer)
        self._pooling = _pooling(spec.folder) if pooling == "auto" else pooling
        self.facts["pooling"] = self._pooling

    def head(self, outputs: Any, mask: Any) -> list[Any]:
        import torch

        hidden = outputs.last_hidden_state.float()
        if self._pooling == "mean":
            weights = mask.unsqueeze(2).float()
            pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        else:
            at = mask.sum(dim=1) - 1 if self._pooling == "last" else torch.zeros_like(mask[:, 0])
            pooled = hidden[torch.arange(len(hidden), device=hidden.device), at]
        vectors: list[Any] = torch.nn.functional.normalize(pooled, dim=1).cpu().tolist()
        return vectors


class ClassEncoder(Encoder):
    """Returns the most probable classes of each text, best first: `[{label, score}, …]`."""

    auto = "AutoModelForSequenceClassification"

    def __init__(self, spec: ModelSpec, tokenizer: Any, top_k: int) -> None:
        super().__init__(spec, tokenizer)
        self._top_k = top_k

    def head(self, outputs: Any, mask: Any) -> list[Any]:
        del mask
        names = self._model.config.id2label
        scores, indices = outputs.logits.float().softmax(dim=1).topk(min(self._top_k, len(names)), dim=1)
        return [
            [{"label": names[index], "score": score} for index, score in zip(*best, strict=True)]
            for best in zip(indices.tolist(), scores.tolist(), strict=True)
        ]


def _max_tokens(folder: Path, tokenizer: Any, config: Any) -> int:
    """The model's maximum number of tokens, from its configuration files."""
    path = folder / "sentence_bert_config.json"
    asked = json.loads(path.read_text()).get("max_seq_length") if path.exists() else None
    known = [asked, tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    return min([limit for limit in known if limit and limit < _UNLIMITED], default=512)


def _pooling(folder: Path) -> str:
    """The pooling in the configuration that the sentence-transformers library stores with a model; default mean."""
    path = folder / "1_Pooling" / "config.json"
    pooling = json.loads(path.read_text()) if path.exists() else {}
    if pooling.get("pooling_mode_cls_token"):
        return "first"
    return "last" if pooling.get("pooling_mode_lasttoken") else "mean"
