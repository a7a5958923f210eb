"""The task that writes the campaign's report, one HTML page in the store."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.manifest import Manifest
from gpu_jobs.report import Report, write_report
from gpu_jobs.telemetry.snapshot import Snapshot


@task(name="report", cache_policy=NO_CACHE)
def report(campaign: Campaign, manifest: Manifest, snapshot: Snapshot) -> Report:
    """Write the report and log its address."""
    written = write_report(campaign, manifest, snapshot)
    get_run_logger().info("report: %s", written.uri)
    return written
