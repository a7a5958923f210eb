"""Runs a model in batches of the size that is fastest on the device and fits into its memory."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_MIN_SPEEDUP = 1.05
_MEASURED_BATCHES = 4


class BatchSize:
    """A batch size in any unit (frames, padded tokens, requests at once) that adapts to the device.

    It doubles, up to `maximum`, while doubling makes the model at least 5 % faster; then it returns to the last size
    that was worth it. Out of memory halves it, and from then on it never grows again.
    """

    def __init__(self, value: int, *, maximum: int = 0) -> None:
        """Start with `value`; by default, without a `maximum`, it never grows."""
        self.value = value
        self.is_final = 2 * value > maximum
        """The size will not grow any more, so that other GPU workers can start with it."""
        self._maximum = maximum
        self._previous_rate = 0.0

    def start_at(self, value: int) -> None:
        """Use the final size of another GPU worker with the same kind of device."""
        self.value, self.is_final = value, True

    def record_speed(self, work: float, seconds: float) -> None:
        """Adapt to a measurement: full batches of this size did `work`, in any one unit, in `seconds`."""
        if self.is_final:
            return
        rate = work / max(seconds, 1e-9)
        if rate < _MIN_SPEEDUP * self._previous_rate:
            self.start_at(self.value // 2)
        elif 2 * self.value > self._maximum:
            self.is_final = True
        else:
            self.value *= 2
        self._previous_rate = rate

    def shrink(self) -> bool:
        """Halve the size because memory ran out; False if it is 1 already."""
        if self.value > 1:
            self.start_at(self.value // 2)
            return True
        return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that GPU or CPU memory ran out; works without torch, which reports some only as text."""
    names = {kind.__name__ for kind in type(error).__mro__}
    words = str(error).lower() if isinstance(error, RuntimeError) else ""
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "out of memory" in words or "can't allocate" in words


def free_memory() -> None:
    """Release the GPU memory that torch caches; call it where no local variable holds tensors any more."""
    import torch

    torch.cuda.empty_cache()


class Batches:
    """Calls a model on as many inputs at once as the batch size allows; out of memory shrinks the size."""

    def __init__(self, size: BatchSize, cost: Callable[[Any], int] = lambda _: 1) -> None:
        """`cost` of one input is in the size's unit; each input of a batch counts as the largest one (padding)."""
        self.size = size
        self._cost = cost

    def run(self, call: Callable[[Sequence[_In]], Sequence[_Out]], inputs: Sequence[_In]) -> list[_Out]:
        """Return one output per input, in order; re-raise the model's error if a single input does not fit."""
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
            free_memory()  # here no local variable holds tensors of the failed batch
        total = sum(map(self._cost, inputs))
        if total >= _MEASURED_BATCHES * size:  # fewer batches are no reliable measurement
            self.size.record_speed(total, perf_counter() - began)
        return outputs

    def _next(self, inputs: Sequence[_In], start: int) -> tuple[Sequence[_In], int]:
        """The next inputs that fit, at least one, and their cost together."""
        largest = together = 0
        for stop in range(start, len(inputs)):
            largest = max(largest, self._cost(inputs[stop]))
            if stop > start and largest * (stop + 1 - start) > self.size.value:
                return inputs[start:stop], together
            together = largest * (stop + 1 - start)
        return inputs[start:], together

    def _shrink_below(self, work: int) -> None:
        """Shrink below `work`, so that a failed batch becomes smaller even if it was not full."""
        while self.size.shrink() and self.size.value >= work:
            continue
