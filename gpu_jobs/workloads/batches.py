"""Feed a model in batches of a size that fits the device."""

from collections.abc import Callable, Sequence
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Batches:
    """Calls a model on at most `size` inputs at a time; out of memory halves `size` for good and goes on."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, call: Callable[[Sequence[_In]], Sequence[_Out]], inputs: Sequence[_In]) -> list[_Out]:
        """One output per input, in order. Raises `torch.OutOfMemoryError` if a single input does not fit."""
        import torch

        outputs: list[_Out] = []
        while len(outputs) < len(inputs):
            try:
                outputs.extend(call(inputs[len(outputs) : len(outputs) + self.size]))
            except torch.OutOfMemoryError:
                if self.size == 1:
                    raise
                self.size //= 2
                torch.cuda.empty_cache()
        return outputs
