"""The bill of RunPod: compute by the second while a pod exists, and the disk of a stopped pod."""

import time
from dataclasses import dataclass, field
from typing import Literal

_RUNNING_DISK_USD_PER_GB_H = 0.10 / 730
_STOPPED_VOLUME_USD_PER_GB_H = 0.20 / 730


@dataclass(slots=True, kw_only=True)
class BillLine:
    """One period of one pod's or serverless worker's lifetime at one price."""

    name: str
    kind: Literal["compute", "stopped disk"]
    usd_per_hour: float
    started_at: float = field(default_factory=time.time)
    ended_at: float | None = None

    @property
    def is_open(self) -> bool:
        return self.ended_at is None

    @property
    def seconds(self) -> float:
        return (time.time() if self.ended_at is None else self.ended_at) - self.started_at

    @property
    def usd(self) -> float:
        return self.usd_per_hour * self.seconds / 3600


@dataclass(slots=True)
class Bill:
    lines: list[BillLine] = field(default_factory=list)

    def begin(self, name: str, usd_per_hour: float, disk_gb: int) -> BillLine:
        line = BillLine(name=name, kind="compute", usd_per_hour=usd_per_hour + disk_gb * _RUNNING_DISK_USD_PER_GB_H)
        self.lines.append(line)
        return line

    def stop(self, line: BillLine, volume_gb: int) -> BillLine:
        """End the line of a stopped pod, and begin one for its volume; its container disk is gone and costs nothing."""
        line.ended_at = time.time()
        stopped = BillLine(name=line.name, kind="stopped disk", usd_per_hour=volume_gb * _STOPPED_VOLUME_USD_PER_GB_H)
        self.lines.append(stopped)
        return stopped

    @property
    def num_open(self) -> int:
        """Number of lines that still grow."""
        return sum(line.is_open for line in self.lines)

    @property
    def usd(self) -> float:
        return sum(line.usd for line in self.lines)

    def summary(self) -> str:
        """Return the bill in one line for people."""
        billed_s = sum(line.seconds for line in self.lines)
        left = f"; {self.num_open} still running" if self.num_open else ""
        return f"{len(self.lines)} pods and serverless workers, {billed_s:.0f} s, ${self.usd:.4f}{left}"
