"""What to do next, decided from what is known. Pure: no clock, no store, no platform, so that simulations run it too.

`decide` is the whole of it; it asks `gates` which offers may be used now, `mix` which GPU workers would do the rest of
the work best, `tail` what to do about the last chunks, and `stalls` what is the matter with GPU jobs.
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
