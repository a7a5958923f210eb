"""The bill of Cloud Run instances, from start to end, in steps of 100 ms."""

import math
import time
from dataclasses import dataclass, field

USD_PER_CPU_S = 0.000018
USD_PER_GIB_S = 0.000002
"""Not confirmed by a published price."""
USD_PER_GPU_S = {"": 0.0, "nvidia-l4": 0.67 / 3600, "nvidia-rtx-pro-6000": 3.0 / 3600}
"""Prices without zonal redundancy. The one of the RTX PRO 6000 is a guess: no published price was found."""
_STEPS_PER_S = 10


@dataclass(slots=True, kw_only=True)
class BillLine:
    """One instance, which runs one attempt at one task."""

    task: str
    attempt: int
    cpus: float
    memory_gib: float
    gpu: str
    began_s: float = field(default_factory=time.monotonic)
    ended_s: float | None = None

    @property
    def is_running(self) -> bool:
        return self.ended_s is None

    @property
    def billed_s(self) -> float:
        life_s = (time.monotonic() if self.ended_s is None else self.ended_s) - self.began_s
        return math.ceil(life_s * _STEPS_PER_S) / _STEPS_PER_S

    @property
    def usd(self) -> float:
        per_s = self.cpus * USD_PER_CPU_S + self.memory_gib * USD_PER_GIB_S + USD_PER_GPU_S[self.gpu]
        return self.billed_s * per_s


class Bill:
    """All instances that ever ran."""

    def __init__(self) -> None:
        self.lines: list[BillLine] = []

    @property
    def usd(self) -> float:
        return sum(line.usd for line in self.lines)

    @property
    def num_running(self) -> int:
        """Number of instances that cost money now."""
        return sum(line.is_running for line in self.lines)

    def summary(self) -> str:
        """Return the bill in one line for people."""
        seconds = sum(line.billed_s for line in self.lines)
        plural = "" if len(self.lines) == 1 else "s"
        return (
            f"{len(self.lines)} instance{plural}, {seconds:.1f} s: ${self.usd:.4f}; still running: {self.num_running}"
        )
