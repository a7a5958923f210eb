"""Static batches with `model.generate`, with little padding and without rows that have ended.

Prompts of similar length are prefilled together, then all rows are decoded together; every few tokens, the rows that
have ended are removed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import GenerationConfig, LogitsProcessorList
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from gpu_jobs.workloads.engines.base import Request
from gpu_jobs.workloads.engines.sampling import SeededSampling

_STEPS_AT_ONCE = 8
"""Tokens decoded between two removals of ended rows: fewer copy the cache more often, more waste computation."""
_MIN_LENGTH_RATIO = 0.75
"""Prompts are prefilled together if the shortest has at least this share of the longest's tokens."""


def generate(model: Any, requests: Sequence[Request], end_tokens: Sequence[int], pad_token: int) -> list[list[int]]:
    """Return the tokens generated for each prompt, at least up to an end token or its limit; torch may raise."""
    indices = sorted(range(len(requests)), key=lambda index: -len(requests[index].tokens))
    batch = _read(model, [requests[index] for index in indices], end_tokens, pad_token)
    answers: list[list[int]] = [[] for _ in requests]
    while indices:
        for index, tokens in zip(indices, batch.answers(), strict=True):
            answers[index] = tokens
        rows = [
            row for row, index in enumerate(indices) if not _is_complete(answers[index], requests[index], end_tokens)
        ]
        if rows:
            batch.keep(rows)
            longest = max(requests[indices[row]].max_new_tokens for row in rows)
            batch.extend(min(_STEPS_AT_ONCE, longest - batch.num_new))
        indices = [indices[row] for row in rows]
    return answers


def _read(model: Any, requests: Sequence[Request], end_tokens: Sequence[int], pad_token: int) -> "_Batch":
    """Prefill all prompts, longest first, and decode one token each; decode all if rows cannot be removed later."""
    batch: _Batch | None = None
    for group in _groups(requests):
        more = _Batch(model, group, end_tokens, pad_token)
        more.extend(1)
        if not more.supports_row_removal:
            whole = _Batch(model, requests, end_tokens, pad_token)
            whole.extend(max(request.max_new_tokens for request in requests))
            return whole
        if batch is None:
            batch = more
        else:
            batch.join(more)
    assert batch is not None
    return batch


def _groups(requests: Sequence[Request]) -> list[list[Request]]:
    groups: list[list[Request]] = []
    for request in requests:
        if groups and len(request.tokens) >= _MIN_LENGTH_RATIO * len(groups[-1][0].tokens):
            groups[-1].append(request)
        else:
            groups.append([request])
    return groups


class _Batch:
    """The state that `model.generate` needs to continue where it stopped."""

    def __init__(self, model: Any, requests: Sequence[Request], end_tokens: Sequence[int], pad_token: int) -> None:
        self._model, self._end_tokens, self._pad_token = model, end_tokens, pad_token
        self.width = len(requests[0].tokens)  # the longest comes first
        padding = [self.width - len(request.tokens) for request in requests]
        rows = [[pad_token] * num + list(request.tokens) for num, request in zip(padding, requests, strict=True)]
        self.ids = torch.tensor(rows, device=model.device)
        self.mask = torch.tensor([[0] * num + [1] * (self.width - num) for num in padding], device=model.device)
        self.sampling = SeededSampling(requests)
        self.cache: Any = None

    @property
    def num_new(self) -> int:
        return int(self.ids.shape[1]) - self.width

    @property
    def supports_row_removal(self) -> bool:
        """False if the model's cache holds more than keys and values, so that rows cannot be removed."""
        kinds = (DynamicLayer, DynamicSlidingWindowLayer)
        return type(self.cache) is DynamicCache and all(type(layer) in kinds for layer in self.cache.layers)

    def answers(self) -> list[list[int]]:
        """The tokens of each row's answer so far."""
        tokens: list[list[int]] = self.ids[:, self.width :].tolist()
        return tokens

    def extend(self, num_tokens: int) -> None:
        """Decode `num_tokens` more tokens per row; fewer if all rows end."""
        config: Any = GenerationConfig
        config = config(
            do_sample=False,  # sampled requests get noise from the logits processor
            max_new_tokens=num_tokens,
            eos_token_id=list(self._end_tokens) or None,
            pad_token_id=self._pad_token,
            return_dict_in_generate=True,
        )
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=self.ids,
                attention_mask=self.mask,
                past_key_values=self.cache,
                generation_config=config,
                logits_processor=LogitsProcessorList([self.sampling] if self.sampling.is_needed else []),
            )
        self.ids, self.cache = output.sequences, output.past_key_values
        self.mask = pad(self.mask, (0, self.ids.shape[1] - self.mask.shape[1]), value=1)

    def join(self, other: "_Batch") -> None:
        """Append the rows of a batch whose prompts are not longer and whose answers have the same length."""
        missing = (self.width - other.width, 0)
        self.ids = torch.cat([self.ids, pad(other.ids, missing, value=self._pad_token)])
        self.mask = torch.cat([self.mask, pad(other.mask, missing)])
        for layer, more in zip(self.cache.layers, other.cache.layers, strict=True):
            layer.keys, layer.values = (_stack(layer.keys, more.keys), _stack(layer.values, more.values))
        self.sampling.join(other.sampling)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows."""
        if len(rows) == len(self.ids):
            return
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        self.cache.batch_select_indices(torch.tensor(rows))
        self.sampling.keep(rows)


def _stack(wide: Any, narrow: Any) -> Any:
    """Concatenate tensors [rows, heads, tokens, size] along rows; the second is padded at the front."""
    return torch.cat([wide, pad(narrow, (0, 0, wide.shape[2] - narrow.shape[2], 0))])


def _is_complete(answer: Sequence[int], request: Request, end_tokens: Sequence[int]) -> bool:
    return len(answer) >= request.max_new_tokens or not set(end_tokens).isdisjoint(answer)
