"""The bill of Modal containers: every second of their lifetimes, idle seconds included."""

import time
from dataclasses import dataclass, field

USD_PER_GPU_S = {
    "": 0.0,
    "T4": 0.000164,
    "L4": 0.000222,
    "A10": 0.000306,
    "A10G": 0.000306,
    "L40S": 0.000542,
    "A100": 0.000583,
    "A100-40GB": 0.000583,
    "A100-80GB": 0.000694,
    "RTX-PRO-6000": 0.000842,
    "H100": 0.001097,
    "H200": 0.001261,
    "B200": 0.001736,
}
USD_PER_CORE_S = 0.0000131
USD_PER_GIB_S = 0.00000222
"""List prices that third parties published in 2026; not compared with an invoice."""


@dataclass(slots=True, kw_only=True)
class BillLine:
    """The bill of one container."""

    task_id: str
    function: str
    gpu: str
    num_gpus: int
    cores: float
    memory_gib: float
    max_cores: float = 0.0
    """Limits; 0: none. Modal bills the higher of request and use, and this bill the request: use is not emulated."""
    max_memory_gib: float = 0.0
    began_s: float = field(default_factory=time.monotonic)
    ready_s: float | None = None
    """When the container first asked for work."""
    ended_s: float | None = None
    num_inputs: int = 0
    worked_s: float = 0.0
    """Seconds with an input."""

    @property
    def is_running(self) -> bool:
        return self.ended_s is None

    @property
    def life_s(self) -> float:
        return (time.monotonic() if self.ended_s is None else self.ended_s) - self.began_s

    @property
    def start_s(self) -> float:
        """Seconds of the cold start."""
        return self.life_s if self.ready_s is None else self.ready_s - self.began_s

    @property
    def idle_s(self) -> float:
        """Seconds paid for without an input, apart from the cold start; exact once the container has ended."""
        return max(0.0, self.life_s - self.start_s - self.worked_s)

    @property
    def usd(self) -> float:
        per_s = self.cores * USD_PER_CORE_S + self.memory_gib * USD_PER_GIB_S
        return self.life_s * (per_s + self.num_gpus * USD_PER_GPU_S[self.gpu])


class Bill:
    """All containers that ever ran."""

    def __init__(self) -> None:
        self.lines: list[BillLine] = []

    @property
    def usd(self) -> float:
        return sum(line.usd for line in self.lines)

    @property
    def num_running(self) -> int:
        """Number of containers that cost money now."""
        return sum(line.is_running for line in self.lines)

    def __str__(self) -> str:
        lines = self.lines
        life_s, start_s = sum(line.life_s for line in lines), sum(line.start_s for line in lines)
        idle_s, num_inputs = sum(line.idle_s for line in lines), sum(line.num_inputs for line in lines)
        return (
            f"{len(lines)} containers for {num_inputs} function calls, {self.num_running} still running: "
            f"{life_s:.0f} s, of them {start_s:.0f} s cold starts and {idle_s:.0f} s idle, ${self.usd:.4f}"
        )
