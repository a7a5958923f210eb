"""The task that publishes a campaign's outputs."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.collect import collect as publish
from gpu_jobs.campaign.manifest import Manifest
from gpu_jobs.telemetry.workers import GpuWorkers


@task(name="collect", cache_policy=NO_CACHE)
def collect(campaign: Campaign, workers: GpuWorkers) -> Manifest:
    """Audit what is settled now, and publish it.

    Raises:
        AuditError: the settlements or parts contradict one another; nothing was published.
    """
    manifest = publish(campaign.store, campaign.plan, workers)
    num_rows = sum(file.num_rows for file in manifest.outputs)
    kind = "the whole result" if manifest.is_complete else "a partial result"
    get_run_logger().info("published %s: %d rows in %d files", kind, num_rows, len(manifest.outputs))
    return manifest
