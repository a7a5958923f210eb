"""Decide what to do next from the state of a campaign. Pure: no clock, store or platform, so simulations run it too.

`decide` is the only entry point. `circuit_breakers` says which offers may be used now, `optimizer` finds the GPU
workers that would do the remaining work best, `scaling` orders and stops GPU jobs accordingly, `hedging` starts second
attempts at the last chunks, and `stalls` says why a GPU job appears stuck.
"""

from gpu_jobs.dispatch.context import allowed
from gpu_jobs.dispatch.decide import decide
from gpu_jobs.dispatch.state import (
    Action,
    CampaignView,
    CloseCampaign,
    Decision,
    HedgeChunk,
    JobView,
    LeaseView,
    OrderEnd,
    Stall,
    StartJob,
    StopJob,
)

__all__ = [
    "Action",
    "CampaignView",
    "CloseCampaign",
    "Decision",
    "HedgeChunk",
    "JobView",
    "LeaseView",
    "OrderEnd",
    "Stall",
    "StartJob",
    "StopJob",
    "allowed",
    "decide",
]
