"""GPU use through NVML, in a thread of the supervisor; without a driver it says so and goes on."""

import os
from collections.abc import Callable
from typing import Any, Protocol


class Sampler(Protocol):
    """Where the heartbeat gets its words on the GPU from."""

    device: str
    """What the compute process is told to use."""

    def read(self) -> str:
        """GPU use now, in words."""


class NoGpu:
    """Stands in where NVML cannot be used; never reports zeros."""

    device = "cpu"

    def __init__(self, why: str) -> None:
        self._why = why

    def read(self) -> str:
        return f"unavailable: {self._why}"


class NvmlSampler:
    """Reads the first GPU that CUDA may use: its memory, and its mean utilisation so far (NVML: a kernel ran)."""

    device = "cuda:0"

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._handle = _visible_gpu(nvml)
        self._uses: list[int] = []

    def read(self) -> str:
        return f"{self._try(self._use)}, {self._try(self._memory)}"

    def _use(self) -> str:
        self._uses.append(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
        return f"busy {sum(self._uses) / len(self._uses):.0f} % of the time"

    def _memory(self) -> str:
        return f"{self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used / 2**30:.1f} GiB in use"

    def _try(self, reading: Callable[[], str]) -> str:
        try:
            return reading()
        except self._nvml.NVMLError as error:
            return f"unavailable: {error}"


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
