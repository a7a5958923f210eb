"""Static batches by `model.generate`, without most of what makes them slow: padding, and rows that have ended.

Prompts are read in groups of similar lengths, then continued together; every few tokens the rows that have ended leave.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import GenerationConfig, LogitsProcessorList
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from gpu_jobs.workloads.engines.base import Request
from gpu_jobs.workloads.engines.sampling import SeededSampling

_STEPS = 8
"""Tokens between two looks for rows that have ended: fewer copy the cache more often, more compute more in vain."""
_SIMILAR = 0.75
"""Prompts are read together if the shortest has this share of the longest's tokens."""


def generate(model: Any, requests: Sequence[Request], end_tokens: Sequence[int], pad_token: int) -> list[list[int]]:
    """The tokens that follow each prompt, at least up to an end token or its limit. Raises what torch raises."""
    places = sorted(range(len(requests)), key=lambda place: -len(requests[place].tokens))
    batch = _read(model, [requests[place] for place in places], end_tokens, pad_token)
    answers: list[list[int]] = [[] for _ in requests]
    while places:
        for place, tokens in zip(places, batch.answers(), strict=True):
            answers[place] = tokens
        rows = [row for row, place in enumerate(places) if not _is_over(answers[place], requests[place], end_tokens)]
        if rows:
            batch.keep(rows)
            longest = max(requests[places[row]].max_new_tokens for row in rows)
            batch.go_on(min(_STEPS, longest - batch.num_new))
        places = [places[row] for row in rows]
    return answers


def _read(model: Any, requests: Sequence[Request], end_tokens: Sequence[int], pad_token: int) -> "_Batch":
    """All prompts, longest first, and the first token of each answer; all of all answers if the model needs it so."""
    batch: _Batch | None = None
    for group in _groups(requests):
        more = _Batch(model, group, end_tokens, pad_token)
        more.go_on(1)
        if not more.can_change:
            whole = _Batch(model, requests, end_tokens, pad_token)
            whole.go_on(max(request.max_new_tokens for request in requests))
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
        if groups and len(request.tokens) >= _SIMILAR * len(groups[-1][0].tokens):
            groups[-1].append(request)
        else:
            groups.append([request])
    return groups


class _Batch:
    """What `model.generate` needs to go on where it has stopped."""

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
    def can_change(self) -> bool:
        """False if the model keeps something else of its past than keys and values."""
        kinds = (DynamicLayer, DynamicSlidingWindowLayer)
        return type(self.cache) is DynamicCache and all(type(layer) in kinds for layer in self.cache.layers)

    def answers(self) -> list[list[int]]:
        """Of each row, up to now."""
        tokens: list[list[int]] = self.ids[:, self.width :].tolist()
        return tokens

    def go_on(self, num_tokens: int) -> None:
        """So many tokens more; fewer if all rows end."""
        config: Any = GenerationConfig
        config = config(
            do_sample=False,  # the processor's noise decides, where a request is sampled
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
        """Take in the rows of one whose prompts are no longer and whose answers are as long."""
        missing = (self.width - other.width, 0)
        self.ids = torch.cat([self.ids, pad(other.ids, missing, value=self._pad_token)])
        self.mask = torch.cat([self.mask, pad(other.mask, missing)])
        for layer, more in zip(self.cache.layers, other.cache.layers, strict=True):
            layer.keys, layer.values = (_stack(layer.keys, more.keys), _stack(layer.values, more.values))
        self.sampling.join(other.sampling)

    def keep(self, rows: Sequence[int]) -> None:
        """Only these go on."""
        if len(rows) == len(self.ids):
            return
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        self.cache.batch_select_indices(torch.tensor(rows))
        self.sampling.keep(rows)


def _stack(wide: Any, narrow: Any) -> Any:
    """Tensors [rows, heads, tokens, size] as one; the second is padded at the front."""
    return torch.cat([wide, pad(narrow, (0, 0, wide.shape[2] - narrow.shape[2], 0))])


def _is_over(answer: Sequence[int], request: Request, end_tokens: Sequence[int]) -> bool:
    return len(answer) >= request.max_new_tokens or not set(end_tokens).isdisjoint(answer)
