"""GPU use through NVML, in a thread of the supervisor; without a driver it says so and goes on."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from gpu_jobs.ledger.gpu_use import GpuUse


class Reading(NamedTuple):
    """GPU use so far; None with a note if all of it is unknown."""

    use: GpuUse | None
    note: str = ""
    """Why all of it, or a part, is unknown; for people."""


class Sampler(Protocol):
    """Where the heartbeat gets its GPU use from."""

    device: str
    """What the compute process is told to use."""

    def read(self) -> Reading:
        """Measure once more."""


class NoGpu:
    """Stands in where NVML cannot be used; never reports zeros."""

    device = "cpu"

    def __init__(self, why: str) -> None:
        self._why = why

    def read(self) -> Reading:
        return Reading(None, self._why)


class NvmlSampler:
    """Reads the first GPU that CUDA may use: its memory, and its mean utilisation so far (NVML: a kernel ran)."""

    device = "cuda:0"

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._handle = _visible_gpu(nvml)
        self._uses: list[int] = []

    def read(self) -> Reading:
        busy_share, busy_note = self._try(self._busy_share)
        memory_gib, memory_note = self._try(self._memory_gib)
        note = "; ".join(dict.fromkeys(filter(None, [busy_note, memory_note])))
        if busy_share is None and memory_gib is None:
            return Reading(None, note)
        return Reading(GpuUse(busy_share=busy_share, memory_gib=memory_gib), note)

    def _busy_share(self) -> float:
        self._uses.append(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
        return round(sum(self._uses) / len(self._uses) / 100, 4)

    def _memory_gib(self) -> float:
        return round(int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used) / 2**30, 3)

    def _try(self, measure: Callable[[], float]) -> tuple[float | None, str]:
        try:
            return measure(), ""
        except self._nvml.NVMLError as error:
            return None, str(error)


def _visible_gpu(nvml: Any) -> Any:
    """NVML numbers all GPUs of the machine, whatever CUDA was told to see."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    if first.startswith("GPU-"):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)


def open_sampler() -> Sampler:
    """The GPU of this container, or `NoGpu`."""
    try:
        import pynvml
    except ImportError:
        return NoGpu("nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
        return NvmlSampler(pynvml)
    except pynvml.NVMLError as error:
        return NoGpu(str(error))
