"""Measures GPU use through NVML. Without a driver the GPU worker works too, and reports that GPU use is unknown."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from gpu_jobs.ledger.gpu_use import GpuUse


class Reading(NamedTuple):
    """GPU use so far; `use` is None, with a note, if all of it is unknown."""

    use: GpuUse | None
    note: str = ""
    """Why GPU use, or a part of it, is unknown; for people."""


class Sampler(Protocol):
    """The source of the GPU use in a heartbeat."""

    device: str
    """The device that the compute process shall use."""

    def read(self) -> Reading:
        """Measure again and return the use so far."""


class NoGpu:
    """The sampler where NVML cannot be used. It reports GPU use as unknown, never as zero."""

    device = "cpu"

    def __init__(self, why: str) -> None:
        self._why = why

    def read(self) -> Reading:
        return Reading(None, self._why)


class NvmlSampler:
    """Reads memory and mean utilisation of the first GPU that CUDA may use.

    NVML's utilisation is the share of time in which at least one kernel ran.
    """

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
    """Find the first GPU that CUDA may use; NVML counts all GPUs of the machine and ignores `CUDA_VISIBLE_DEVICES`."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    if first.startswith("GPU-"):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)


def open_sampler() -> Sampler:
    """Return a sampler for the GPU of this container, or `NoGpu`."""
    try:
        import pynvml
    except ImportError:
        return NoGpu("nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
        return NvmlSampler(pynvml)
    except pynvml.NVMLError as error:
        return NoGpu(str(error))
