"""Sampling that depends on nothing but a request's own seed: not on its neighbours, nor on the order of work."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

from gpu_jobs.workloads.engines.base import Request


class SeededSampling(LogitsProcessor):
    """Makes the most likely token a draw: scores get Gumbel noise from a generator per row (the Gumbel-max trick)."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = list(requests)
        self.dice = [torch.Generator().manual_seed(request.seed) for request in requests]

    @property
    def is_needed(self) -> bool:
        return any(request.temperature for request in self.requests)

    def join(self, other: "SeededSampling") -> None:
        """The rows of another batch follow."""
        self.requests += other.requests
        self.dice += other.dice

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows of the batch go on."""
        self.requests = [self.requests[row] for row in rows]
        self.dice = [self.dice[row] for row in rows]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """`scores` [rows, vocabulary] of the next token, of each row."""
        del input_ids
        rows = []
        for row, request, dice in zip(scores.float().cpu(), self.requests, self.dice, strict=True):
            if not request.temperature:
                rows.append(row)
                continue
            noise = -torch.empty_like(row).exponential_(generator=dice).log()
            rows.append(_within(row / request.temperature, request.top_p) + noise)
        return torch.stack(rows).to(scores.device)


def _within(row: Any, top_p: float) -> Any:
    """Only the most likely tokens that together have probability `top_p`."""
    if top_p >= 1:
        return row
    ordered, places = row.sort(descending=True)
    before = ordered.softmax(0).cumsum(0) - ordered.softmax(0)
    return row.index_fill(0, places[before > top_p], -torch.inf)
