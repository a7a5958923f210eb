"""Text generation by the transformers library, in static batches of similar lengths that shrink as rows end.

On a GPU greedy decoding has continuous batching. On a CPU that took as many CPU seconds as static batches, and its
session costs seconds to open, so they are all there is.
"""

import gc
import math
from collections.abc import Mapping, Sequence
from time import perf_counter

from gpu_jobs.workloads.batch_size import Batches, BatchSize, free_memory, is_out_of_memory
from gpu_jobs.workloads.engines.base import ModelSpec, Request, Result
from gpu_jobs.workloads.engines.continuous import ContinuousBatching
from gpu_jobs.workloads.engines.loading import load_model

_AT_ONCE = {"cpu": (64, 64), "cuda": (64, 512)}
"""Requests at once: to begin with, and at most. A CPU reads all weights for each token, however many want one."""
_REQUEST_TOKENS = 512
"""A request with more, prompt and answer together, counts as several."""


class TransformersEngine:
    """Any causal language model that transformers loads. Implements `Engine`."""

    def __init__(self, spec: ModelSpec) -> None:
        import transformers

        self._spec = spec
        self.batch_size = _start_size(spec.device)
        self._model, choice = load_model(spec, transformers.AutoModelForCausalLM)
        self.facts: Mapping[str, str] = {
            "engine": f"transformers {transformers.__version__}",
            "precision": f"{choice.precision}: {choice.reason}",
        }
        config = self._model.config.get_text_config()
        self.context_tokens: int = getattr(config, "max_position_embeddings", 0) or 2048
        eos = self._model.generation_config.eos_token_id
        self._eos: list[int] = [eos] if isinstance(eos, int) else list(eos or [])
        pad = self._model.generation_config.pad_token_id
        self._pad: int = (self._eos or [0])[0] if pad is None else pad
        self._continuous = ContinuousBatching(self._model, self._eos, self._pad)
        self.is_continuous = spec.device != "cpu"

    def run(self, requests: Sequence[Request]) -> Sequence[Result]:
        flowing = [place for place, one in enumerate(requests) if self.is_continuous and not one.temperature]
        static = sorted(set(range(len(requests))) - set(flowing))
        results: dict[int, Result] = {}
        if flowing:
            results.update(zip(flowing, self._flow([requests[place] for place in flowing]), strict=True))
        if static:
            self._continuous.close()  # it changes the model's attention
            static.sort(key=lambda place: (-requests[place].max_new_tokens, -len(requests[place].tokens), place))
            answers = Batches(self.batch_size, cost=_cost).run(self._static, [requests[place] for place in static])
            results.update(zip(static, answers, strict=True))
        return [results[place] for place in range(len(requests))]

    def close(self) -> None:
        self._continuous.close()
        del self._model, self._continuous
        gc.collect()
        free_memory()

    def _flow(self, requests: Sequence[Request]) -> Sequence[Result]:
        """By continuous batching, fewer at a time while memory runs out."""
        while True:
            began = perf_counter()
            try:
                answers = self._continuous.run(requests, self.batch_size.value)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self.batch_size.shrink():
                    raise
            else:
                if len(requests) >= 2 * self.batch_size.value:
                    self.batch_size.measured(sum(map(len, answers)), perf_counter() - began)
                return list(map(self._result, answers, requests))
            free_memory()

    def _static(self, requests: Sequence[Request]) -> Sequence[Result]:
        from gpu_jobs.workloads.engines.static import generate

        answers = generate(self._model, requests, self._eos, self._pad)
        return list(map(self._result, answers, requests))

    def _result(self, tokens: Sequence[int], request: Request) -> Result:
        """Cut at the first end token, or at the request's own limit."""
        kept = list(tokens[: request.max_new_tokens])
        end = next((place for place, token in enumerate(kept) if token in self._eos), None)
        if end is None:
            return Result(tokens=kept, finish_reason="length")
        return Result(tokens=kept[:end], finish_reason="stop")


def _cost(request: Request) -> int:
    return math.ceil((len(request.tokens) + request.max_new_tokens) / _REQUEST_TOKENS)


def _start_size(device: str) -> BatchSize:
    first, most = _AT_ONCE[device.partition(":")[0]]
    return BatchSize(first, most=most)
