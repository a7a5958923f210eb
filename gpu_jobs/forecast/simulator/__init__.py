"""Simulate a campaign on a virtual clock, driven by the real `decide`, to find its cost and finish time.

GPU jobs have cold starts, work at different speeds, are refused, fail, are preempted, and are billed by the rules of
their offers. As in reality, idle GPU workers take over part of the chunks that others hold, wait for one cold start's
time, and then exit. Not simulated: the store's latency, network failures, and items that kill one GPU worker after
another (a chunk with such an item only takes longer). The same input and seed always give the same outcome.
"""

from gpu_jobs.forecast.simulator.campaign import Decide, simulate
from gpu_jobs.forecast.simulator.model import (
    Draw,
    OfferBehaviour,
    SimulatedOutcome,
    SimulatedWork,
    as_offered,
    lognormal,
)
from gpu_jobs.forecast.simulator.workers import START

__all__ = [
    "START",
    "Decide",
    "Draw",
    "OfferBehaviour",
    "SimulatedOutcome",
    "SimulatedWork",
    "as_offered",
    "lognormal",
    "simulate",
]
