"""Helpers of the chaos tests: finish campaigns, read what they published, find their processes."""

import time
from collections.abc import Callable

import polars as pl
import psutil

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.manifest import Manifest, read_output
from gpu_jobs.jobs.orders import Policy


def finish(campaign: Campaign, policy: Policy) -> Manifest:
    """Run a campaign to its end and publish it."""
    *_, last = campaign.run(policy, tick_s=0.1)
    assert last.is_complete, f"{last.closed}: {last.jobs}"
    return collect(campaign.store, campaign.plan)


def rows_of(campaign: Campaign, manifest: Manifest) -> pl.DataFrame:
    return pl.concat([read_output(campaign.store, file) for file in manifest.outputs])


def quarantine_of(campaign: Campaign, manifest: Manifest) -> pl.DataFrame:
    return read_output(campaign.store, manifest.quarantine)


def gpu_workers(campaign: Campaign) -> list[psutil.Process]:
    """The living GPU worker processes of a campaign."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        is_alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if is_alive and "gpu_jobs.worker" in command and campaign.store.uri in command:
            found.append(process)
    return found


def wait_for(what: Callable[[], object], within_s: float = 30.0) -> None:
    give_up_at = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.05)
