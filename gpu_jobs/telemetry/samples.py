"""What was measured of offers: sums for dispatch, single values for forecasts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was measured on one offer, in this campaign or in earlier ones of the same workload."""

    items: float = 0.0
    working_s: float = 0.0
    """GPU worker seconds that went into those items."""
    starts: int = 0
    """Cold starts that were seen to their end."""
    start_s: float = 0.0
    """All of them together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What was measured of one offer."""

    starts_s: tuple[float, ...] = ()
    """Cold starts, order to first item. Only these are forecast with: nobody promises a warm one."""
    warm_starts_s: tuple[float, ...] = ()
    items_per_s: tuple[float, ...] = ()
    """Of GPU workers at work, one value each."""
    orders: int = 0
    failed_orders: int = 0
    """Of these, those that came to nothing by an error."""
    worker_hours: float = 0.0
    preemptions: int = 0

    @property
    def evidence(self) -> Evidence:
        """For `decide`; as if every GPU worker had worked for a minute."""
        return Evidence(
            items=60 * sum(self.items_per_s),
            working_s=60.0 * len(self.items_per_s),
            starts=len(self.starts_s),
            start_s=sum(self.starts_s),
        )
