"""GPU use through NVML, in a thread of the supervisor; without a driver it says so and goes on."""

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
    """Reads the first GPU: the mean of its utilisation so far (a kernel ran, NVML's coarse meaning), and its memory."""

    device = "cuda:0"

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(0)
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
