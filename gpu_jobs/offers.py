"""What can be rented, and for how much."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One way to get GPU workers: a platform's machine at a dated price."""

    platform: str
    gpu: str
    """The platform's name of the GPU type, "cpu" for none."""
    num_gpus: int
    """GPUs of one GPU worker."""
    region: str
    mode: str
    """ "on-demand", "spot", ..."""
    usd_per_hour: float
    """Of one GPU worker, everything that is billed with it included."""
    priced_on: date
    price_source: str
    max_workers: int
    """GPU workers that one GPU job may have."""
    max_hours: float | None = None
    """A GPU job expires at the latest so long after its order, so that its platform never cuts it off; None: any."""

    def job_hours(self, wanted: float) -> float:
        """How long a GPU job may last here, of what is wanted."""
        return wanted if self.max_hours is None else min(wanted, self.max_hours)

    @property
    def machine(self) -> str:
        """GPU, place and mode, for people; the platform is named beside it."""
        if self.platform == "local":
            return self._gpus
        return f"{self._gpus}, {self.region}, {self.mode}"

    @property
    def _gpus(self) -> str:
        if not self.num_gpus:
            return "no GPU"
        return self.gpu if self.num_gpus == 1 else f"{self.num_gpus} \N{MULTIPLICATION SIGN} {self.gpu}"


LOCAL = Offer(
    platform="local",
    gpu="cpu",
    num_gpus=0,
    region="here",
    mode="on-demand",
    usd_per_hour=0.0,
    priced_on=date(2026, 11, 24),
    price_source="this machine is already paid for",
    max_workers=64,
)
