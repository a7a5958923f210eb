"""Feed a model in batches of a size that fits the device and makes the most of it."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_WORTH_IT = 1.05
_MEASURED_BATCHES = 4


class BatchSize:
    """A size in any unit (frames, padded tokens, requests at once) that learns what the device likes.

    It doubles while that makes the model at least 5 % faster, up to `most`, then goes back to the last size that paid.
    Out of memory halves it, and from then on it never grows again.
    """

    def __init__(self, value: int, *, most: int = 0) -> None:
        """`most`: by default it does not grow."""
        self.value = value
        self.is_settled = 2 * value > most
        """It will not grow any more, so others may start with it."""
        self._most = most
        self._rate_before = 0.0

    def start_at(self, value: int) -> None:
        """Take over what another GPU worker with such a device has learned."""
        self.value, self.is_settled = value, True

    def measured(self, work: float, seconds: float) -> None:
        """Full batches of this size did so much work, in whatever unit, in so many seconds."""
        if self.is_settled:
            return
        rate = work / max(seconds, 1e-9)
        if rate < _WORTH_IT * self._rate_before:
            self.start_at(self.value // 2)
        elif 2 * self.value > self._most:
            self.is_settled = True
        else:
            self.value *= 2
        self._rate_before = rate

    def shrink(self) -> bool:
        """Memory ran out: halve. False if there is nothing left to halve."""
        if self.value > 1:
            self.start_at(self.value // 2)
            return True
        return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or beside it; torch may not be loaded here, and may say it in words."""
    names = {kind.__name__ for kind in type(error).__mro__}
    words = str(error).lower() if isinstance(error, RuntimeError) else ""
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "out of memory" in words or "can't allocate" in words


def free_memory() -> None:
    """Give back what torch keeps on the GPU for later; call it outside of the frames that hold tensors."""
    import torch

    torch.cuda.empty_cache()


class Batches:
    """Calls a model on as many inputs at a time as its size allows; out of memory shrinks the size."""

    def __init__(self, size: BatchSize, cost: Callable[[Any], int] = lambda _: 1) -> None:
        """`cost`: of one input, in the size's unit; all inputs of a batch count as much as the dearest (padding)."""
        self.size = size
        self._cost = cost

    def run(self, call: Callable[[Sequence[_In]], Sequence[_Out]], inputs: Sequence[_In]) -> list[_Out]:
        """One output per input, in order. Raises what the model raised if a single input does not fit."""
        outputs: list[_Out] = []
        began, size = perf_counter(), self.size.value
        while len(outputs) < len(inputs):
            batch, work = self._next(inputs, len(outputs))
            try:
                outputs.extend(call(batch))
            except (RuntimeError, MemoryError) as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
                self._shrink_below(work)
            else:
                continue
            free_memory()  # out here nothing holds the tensors of the batch that failed
        total = sum(map(self._cost, inputs))
        if total >= _MEASURED_BATCHES * size:  # fewer tell nothing
            self.size.measured(total, perf_counter() - began)
        return outputs

    def _next(self, inputs: Sequence[_In], start: int) -> tuple[Sequence[_In], int]:
        """The next inputs that fit, at least one, and what they cost together."""
        dearest = together = 0
        for stop in range(start, len(inputs)):
            dearest = max(dearest, self._cost(inputs[stop]))
            if stop > start and dearest * (stop + 1 - start) > self.size.value:
                return inputs[start:stop], together
            together = dearest * (stop + 1 - start)
        return inputs[start:], together

    def _shrink_below(self, work: int) -> None:
        """So that the batch that did not fit becomes smaller, also one that was not full."""
        while self.size.shrink() and self.size.value >= work:
            continue
