"""How much of its GPU a GPU worker uses, as numbers; words are made of them where people read them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """Measured by a GPU worker of its first GPU; None: that part could not be read."""

    busy_share: float | None = None
    """Mean share of the time, 0 to 1, in which the GPU was at work (NVML: a kernel ran)."""
    memory_gib: float | None = None
    """GPU memory in use at the last reading."""

    @property
    def words(self) -> str:
        """For people."""
        busy = "" if self.busy_share is None else f"busy {100 * self.busy_share:.0f} % of the time"
        memory = "" if self.memory_gib is None else f"{self.memory_gib:.1f} GiB in use"
        return ", ".join(filter(None, [busy, memory]))
