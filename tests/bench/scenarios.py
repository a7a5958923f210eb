"""Scenarios of the routing benchmark. Fixed before `decide` was tuned; not to be changed to make a figure better.

`THREE_CLOUDS` holds the target "at least 20 % cheaper than the cheapest single platform that meets the deadline". All
GPU workers have an L4, the one GPU type that all three platforms rent.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """One platform as it really is in a scenario, whatever `offers.toml` believes."""

    platform: str
    gpu: str
    region: str
    mode: str
    usd_per_hour: float
    cold_start_p50_s: float
    cold_start_p90_s: float
    stock_share: float | None = None
    """GPU workers in stock, of those that it alone would need to meet the deadline; None: the campaign's limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreeClouds:
    clouds: tuple[Cloud, ...]
    num_chunks: int
    items_per_chunk: int
    item_s: float
    """Mean seconds of an item on an L4."""
    item_sigma: float
    """Of the logarithm of a chunk's seconds."""
    max_workers: int
    deadline_factor: float
    """Deadline over the finish time of the fastest single platform."""
    seeds: tuple[int, ...]
    """For the published figures; tuning uses others."""


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
"""The same scenario with RunPod's serverless price of an L4, the dearest that RunPod asks."""

OUTAGES = ("hard down", "30 % errors", "slow start", "quota", "preemption storm", "price change")
"""Each befalls the cheapest platform and ends 43 % of the way to the deadline. Those that befall orders are there from
the beginning, when orders are made; the others begin after a tenth of the way."""
