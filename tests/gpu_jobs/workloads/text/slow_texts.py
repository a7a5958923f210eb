"""Text workloads that tell what they do, and that take their time or run out of memory as a test wants."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field

from gpu_jobs.workloads.base import Params
from gpu_jobs.workloads.text.encode import Embed, EmbedParams
from gpu_jobs.workloads.text.generate import Generate, GenerateParams


class SlowParams(EmbedParams):
    window: int = 4
    window_s: float = Field(default=0.3)
    diary: str = ""
    """A folder, where each window that was computed leaves a file."""
    fits: int = 10**9
    """Padded tokens at once that memory holds."""
    first_size: int = 64


class SlowEmbed(Embed):
    """Windows of a few texts, each noted before it takes its time."""

    params_model: ClassVar[type[Params]] = SlowParams
    params: SlowParams

    def setup(self, device: str) -> None:
        super().setup(device)
        self.micro_batch = self.params.window
        if not self.batch_size.is_final:
            self.batch_size.value = self.params.first_size
        self._note(f"size {self.batch_size.value}")
        forward = self._encoder._encode

        def encode(texts: Sequence[Any]) -> list[Any]:
            if len(texts) * len(texts[0].ids) > self.params.fits:
                self._note(f"out of memory at {self.batch_size.value}")
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(texts)

        self._encoder._encode = encode  # type: ignore[method-assign]

    def answer(self, inputs: Sequence[Any]) -> Any:
        rows = super().answer(inputs)
        self._note(f"window {len(inputs)} at {self.batch_size.value}")
        time.sleep(self.params.window_s)
        return rows

    def _note(self, line: str) -> None:
        if self.params.diary:
            (Path(self.params.diary) / f"{time.time_ns()}-{os.getpid()}").write_text(line)


class SlowGenerateParams(GenerateParams):
    loads_until: str = ""
    """A file: the model has loaded when it is there."""


class SlowGenerate(Generate):
    """Ten windows a second at most, so that there is time to be killed."""

    params_model: ClassVar[type[Params]] = SlowGenerateParams
    params: SlowGenerateParams

    def setup(self, device: str) -> None:
        super().setup(device)
        while self.params.loads_until and not Path(self.params.loads_until).exists():
            time.sleep(0.1)

    def answer(self, inputs: Sequence[Any]) -> Any:
        time.sleep(0.1)
        return super().answer(inputs)
