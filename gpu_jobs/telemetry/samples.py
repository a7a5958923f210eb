"""What was measured on offers: sums for dispatch, single values for forecasts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Sums of what was measured on one offer, in this campaign or in earlier ones of the same workload."""

    items: float = 0.0
    working_s: float = 0.0
    """Seconds that GPU workers worked on those items, added up."""
    starts: int = 0
    """Number of starts that ended in a GPU worker that was ready to work."""
    start_s: float = 0.0
    """Seconds of all those starts, added up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Single measurements on one offer."""

    starts_s: tuple[float, ...] = ()
    """Cold starts, from the order until ready to work. Forecasts use only these: a warm start is never certain."""
    warm_starts_s: tuple[float, ...] = ()
    items_per_s: tuple[float, ...] = ()
    """One value for each GPU worker, while it worked."""
    orders: int = 0
    """Number of GPU jobs that have ended."""
    failed_orders: int = 0
    """How many of `orders` ended with an error and without an item."""
    worker_hours: float = 0.0
    preemptions: int = 0

    @property
    def evidence(self) -> Evidence:
        """The same as sums, for `decide`, as if every GPU worker had worked for one minute."""
        return Evidence(
            items=60 * sum(self.items_per_s),
            working_s=60.0 * len(self.items_per_s),
            starts=len(self.starts_s),
            start_s=sum(self.starts_s),
        )
