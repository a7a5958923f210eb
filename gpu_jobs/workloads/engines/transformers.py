"""Text generation with the transformers library.

Greedy decoding on a GPU uses continuous batching. Sampling, and everything on a CPU, uses static batches: on a CPU,
continuous batching took as many CPU seconds, and opening it costs some seconds more.
"""

import gc
import math
from collections.abc import Mapping, Sequence
from time import perf_counter

from gpu_jobs.workloads.batch_size import Batches, BatchSize, free_memory, is_out_of_memory
from gpu_jobs.workloads.engines.base import Completion, ModelSpec, Request
from gpu_jobs.workloads.engines.continuous import ContinuousBatching
from gpu_jobs.workloads.engines.loading import load_model

_AT_ONCE = {"cpu": (64, 64), "cuda": (64, 512)}
"""Initial and maximum number of requests at once. A CPU reads all weights for each step, whatever the batch."""
_REQUEST_TOKENS = 512
"""A request with more tokens, prompt and answer together, counts as several requests."""


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

    def run(self, requests: Sequence[Request]) -> Sequence[Completion]:
        continuous = [index for index, one in enumerate(requests) if self.is_continuous and not one.temperature]
        static = sorted(set(range(len(requests))) - set(continuous))
        results: dict[int, Completion] = {}
        if continuous:
            results.update(
                zip(continuous, self._run_continuous([requests[index] for index in continuous]), strict=True)
            )
        if static:
            self._continuous.close()  # it changes the model's attention
            static.sort(key=lambda index: (-requests[index].max_new_tokens, -len(requests[index].tokens), index))
            answers = Batches(self.batch_size, cost=_cost).run(self._run_static, [requests[index] for index in static])
            results.update(zip(static, answers, strict=True))
        return [results[index] for index in range(len(requests))]

    def close(self) -> None:
        self._continuous.close()
        del self._model, self._continuous
        gc.collect()
        free_memory()

    def _run_continuous(self, requests: Sequence[Request]) -> Sequence[Completion]:
        """Run continuous batching, with fewer requests at once while memory runs out."""
        while True:
            began = perf_counter()
            try:
                answers = self._continuous.run(requests, self.batch_size.value)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not self.batch_size.shrink():
                    raise
            else:
                if len(requests) >= 2 * self.batch_size.value:
                    self.batch_size.record_speed(sum(map(len, answers)), perf_counter() - began)
                return list(map(self._result, answers, requests))
            free_memory()

    def _run_static(self, requests: Sequence[Request]) -> Sequence[Completion]:
        from gpu_jobs.workloads.engines.static import generate

        answers = generate(self._model, requests, self._eos, self._pad)
        return list(map(self._result, answers, requests))

    def _result(self, tokens: Sequence[int], request: Request) -> Completion:
        """Cut the answer at the first end token, or at the request's own limit."""
        kept = list(tokens[: request.max_new_tokens])
        end = next((index for index, token in enumerate(kept) if token in self._eos), None)
        if end is None:
            return Completion(tokens=kept, finish_reason="length")
        return Completion(tokens=kept[:end], finish_reason="stop")


def _cost(request: Request) -> int:
    return math.ceil((len(request.tokens) + request.max_new_tokens) / _REQUEST_TOKENS)


def _start_size(device: str) -> BatchSize:
    first, maximum = _AT_ONCE[device.partition(":")[0]]
    return BatchSize(first, maximum=maximum)
