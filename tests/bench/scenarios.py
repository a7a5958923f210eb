"""Scenarios of the routing benchmark, fixed before `decide` was tuned. Do not change them to improve a figure.

`THREE_CLOUDS` belongs to the target "at least 20 % cheaper than the cheapest single platform that meets the deadline".
All GPU workers have an L4, the only GPU type that all three platforms rent.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """One platform as it really is in a scenario, whatever `offers.toml` says."""

    platform: str
    gpu: str
    region: str
    mode: str
    usd_per_hour: float
    cold_start_p50_s: float
    cold_start_p90_s: float
    stock_share: float | None = None
    """Stock as a share of the GPU workers that the platform alone would need for the deadline; None means unlimited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreeClouds:
    clouds: tuple[Cloud, ...]
    num_chunks: int
    items_per_chunk: int
    item_s: float
    """Mean duration of an item on an L4."""
    item_sigma: float
    """Standard deviation of the logarithm of a chunk's duration."""
    max_workers: int
    deadline_factor: float
    """The deadline as a multiple of the finish time of the fastest single platform."""
    seeds: tuple[int, ...]
    """Seeds of the published figures; tuning uses others."""


THREE_CLOUDS = ThreeClouds(
    clouds=(
        Cloud(
            platform="cloud_run",
            gpu="nvidia-l4",
            region="europe-west4",
            mode="on-demand",
            usd_per_hour=1.05,
            cold_start_p50_s=45.0,
            cold_start_p90_s=90.0,
        ),
        Cloud(
            platform="modal",
            gpu="L4",
            region="any",
            mode="on-demand",
            usd_per_hour=1.02,
            cold_start_p50_s=18.0,
            cold_start_p90_s=60.0,
        ),
        Cloud(
            platform="runpod",
            gpu="NVIDIA L4",
            region="any",
            mode="secure",
            usd_per_hour=0.39,
            cold_start_p50_s=120.0,
            cold_start_p90_s=300.0,
            stock_share=0.6,
        ),
    ),
    num_chunks=2000,
    items_per_chunk=20,
    item_s=9.0,
    item_sigma=0.3,
    max_workers=100,
    deadline_factor=1.2,
    seeds=tuple(range(9000, 9020)),
)

RUNPOD_FLEX_USD_PER_HOUR = 0.68
"""RunPod's serverless price of an L4, its highest, for a variant of the scenario."""

OUTAGES = ("hard down", "30 % errors", "slow start", "quota", "preemption storm", "price change")
"""Outages of the cheapest platform. Each ends after 43 % of the time until the deadline. Those that affect orders
begin at once, when orders are made; the others begin after 10 % of that time."""
