"""Continuous batching with transformers: a finished request is replaced by the next one at once."""

import math
import threading
from collections.abc import Sequence
from typing import Any

from gpu_jobs.workloads.engines.base import Request

_PAGE_TOKENS = 32
_CPU_STEP_TOKENS = 256
_CPU_CACHE_TOKENS = 16_384
_LENGTH_STEP = 256
_POLL_S = 1.0


class ContinuousBatching:
    """Keeps one continuous-batching manager of transformers open across calls, since closing it takes a second.

    While the manager is open, the model uses another attention implementation: close it before any other use.
    """

    def __init__(self, model: Any, end_tokens: Sequence[int], pad_token: int) -> None:
        self._model = model.requires_grad_(requires_grad=False)  # `no_grad` does not apply to its thread
        self._end_tokens = list(end_tokens) or [-1]
        self._pad_token = pad_token
        self._manager: Any = None
        self._at_once = self._longest = self._count = 0

    def run(self, requests: Sequence[Request], at_once: int) -> list[list[int]]:
        """Return the tokens generated for each prompt, with the end token.

        Raises:
            RuntimeError: the manager failed, for example because memory ran out.
        """
        self._open(at_once, max(len(request.tokens) + request.max_new_tokens for request in requests))
        self._count += 1
        names = [f"{self._count}-{index}" for index in range(len(requests))]
        for name, request in sorted(zip(names, requests, strict=True), key=lambda pair: -pair[1].max_new_tokens):
            self._manager.add_request(
                list(request.tokens), name, max_new_tokens=request.max_new_tokens, eos_token_id=self._end_tokens
            )
        found: dict[str, list[int]] = {}
        while len(found) < len(requests):
            output = self._manager.get_result(timeout=_POLL_S)
            if output is not None and output.error is None and output.is_finished():
                found[output.request_id] = list(output.generated_tokens)
            elif output is not None or not self._manager.is_running():
                error = output.error if output is not None else self._manager.background_thread_status.fatal_error
                self.close()
                raise RuntimeError(f"continuous batching failed: {error}")
        return [found[name] for name in names]

    def close(self) -> None:
        if self._manager is not None:
            self._manager.stop(block=True, hard_stop=True)
            self._manager.destroy()
            self._manager = None

    def _open(self, at_once: int, longest: int) -> None:
        if self._manager is not None and self._at_once == at_once and longest <= self._longest:
            return
        self.close()
        from transformers import ContinuousBatchingConfig, GenerationConfig

        self._at_once, self._longest = at_once, math.ceil(longest / _LENGTH_STEP) * _LENGTH_STEP
        sizes: dict[str, Any] = {"max_requests_per_batch": at_once}
        if self._model.device.type == "cpu":  # on a GPU the manager uses the free memory
            tokens = max(self._longest, min(at_once * self._longest, _CPU_CACHE_TOKENS))
            blocks = tokens // _PAGE_TOKENS + at_once
            sizes |= {"page_size": _PAGE_TOKENS, "num_blocks": blocks, "max_batch_tokens": _CPU_STEP_TOKENS}
        config: Any = GenerationConfig
        self._manager = self._model.init_continuous_batching(
            generation_config=config(do_sample=False, eos_token_id=self._end_tokens, pad_token_id=self._pad_token),
            continuous_batching_config=ContinuousBatchingConfig(**sizes),
        )
        self._manager.warmup()
        starter = threading.Thread(
            target=self._manager.start, daemon=True
        )  # so that the thread that it starts is a daemon too
        starter.start()
        starter.join()
