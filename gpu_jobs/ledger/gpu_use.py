"""How much of its GPU a GPU worker uses: numbers, and the words for them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """What a GPU worker measured on its first GPU; None: that number could not be read."""

    busy_share: float | None = None
    """Mean share of the time, 0 to 1, in which a kernel ran on the GPU (by NVML)."""
    memory_gib: float | None = None
    """GPU memory in use at the last reading."""

    @property
    def words(self) -> str:
        """The known numbers in words for people; "" if none is known."""
        busy = "" if self.busy_share is None else f"busy {100 * self.busy_share:.0f} % of the time"
        memory = "" if self.memory_gib is None else f"{self.memory_gib:.1f} GiB in use"
        return ", ".join(filter(None, [busy, memory]))
