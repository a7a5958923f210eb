"""Scenes for `decide`: an hour's work of ten GPU workers; a cheap, an expensive and a fast offer; and the outcome."""

from dataclasses import replace
from datetime import UTC, datetime

from gpu_jobs.dispatch import (
    CampaignView,
    JobView,
    OrderEnd,
    StartJob,
    decide,
)
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.telemetry.samples import Evidence
from gpu_jobs.testing import a_policy, an_offer

NOW = datetime(2026, 11, 24, tzinfo=UTC)
CHEAP = an_offer(platform="cheap", usd_per_hour=0.4, cold_start_p50_s=120.0, cold_start_p90_s=300.0, max_workers=100)
EXPENSIVE = an_offer(
    platform="expensive", usd_per_hour=1.0, cold_start_p50_s=20.0, cold_start_p90_s=60.0, max_workers=100
)
FAST = an_offer(platform="fast", usd_per_hour=8.0, speed=4.0, cold_start_p50_s=20.0, max_workers=100)


def a_job(offer=CHEAP, **changes):
    job = JobView(
        order="job-1", offer=offer, num_workers=4, workers_alive=4, is_starting=False, age_s=600.0, items_done=40,
        has_lived=True,
    )  # fmt: skip
    return replace(job, **changes)


def a_view(items_left=36_000, **changes):
    """An hour's work of ten GPU workers that do an item a second, by measurement."""
    view = CampaignView(
        num_items=40_000,
        items_left=items_left,
        quarantined_items=0,
        chunks_left=max(1, items_left // 100),
        evidence={CHEAP.key: Evidence(items=10_000, working_s=10_000, starts=9, start_s=9 * 120.0)},
    )
    return replace(view, **changes)


def started(decision):
    found = {}
    for action in decision.actions:
        if isinstance(action, StartJob):
            found[action.offer.platform] = found.get(action.offer.platform, 0) + action.num_workers
    return found


def choose(view, offers, **policy):
    return decide(view, offers, a_policy(**{"max_workers": 50, **policy}), NOW)


def refused(num_workers, at=NOW, offer=CHEAP):
    return OrderEnd(offer=offer, num_workers=num_workers, at=at, items_done=0, failure=Failure.NO_CAPACITY)
