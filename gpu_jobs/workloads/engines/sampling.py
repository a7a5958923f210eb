"""Sampling that depends only on a request's seed, not on the other requests in the batch or their order."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

from gpu_jobs.workloads.engines.base import Request


class SeededSampling(LogitsProcessor):
    """Samples by adding Gumbel noise to the scores, with one generator per row (the Gumbel-max trick)."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = list(requests)
        self.generators = [torch.Generator().manual_seed(request.seed) for request in requests]

    @property
    def is_needed(self) -> bool:
        return any(request.temperature for request in self.requests)

    def join(self, other: "SeededSampling") -> None:
        """Append the rows of another batch."""
        self.requests += other.requests
        self.generators += other.generators

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows of the batch."""
        self.requests = [self.requests[row] for row in rows]
        self.generators = [self.generators[row] for row in rows]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Add noise to `scores` [rows, vocabulary], the logits of each row's next token."""
        del input_ids
        rows = []
        for row, request, generator in zip(scores.float().cpu(), self.requests, self.generators, strict=True):
            if not request.temperature:
                rows.append(row)
                continue
            noise = -torch.empty_like(row).exponential_(generator=generator).log()
            rows.append(_within(row / request.temperature, request.top_p) + noise)
        return torch.stack(rows).to(scores.device)


def _within(row: Any, top_p: float) -> Any:
    """Mask all but the most likely tokens that together have probability `top_p`."""
    if top_p >= 1:
        return row
    ordered, indices = row.sort(descending=True)
    before = ordered.softmax(0).cumsum(0) - ordered.softmax(0)
    return row.index_fill(0, indices[before > top_p], -torch.inf)
