"""The task that finds the requested campaign in the store, or creates it."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from gpu_jobs.campaign.campaign import Campaign, open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.errors import NothingNewError, RefusedError
from gpu_jobs.forecast.history import EarlierCampaigns
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.workloads.base import BaseWorkload
from tasks.outcome import end_in


@task(name="split", cache_policy=NO_CACHE)
def split(spec: CampaignSpec, policy: Policy, earlier: EarlierCampaigns) -> Campaign | None:
    """Find the campaign or create it; return None if `only_new` was requested and there are no new items.

    Raises:
        RefusedError: a field of the request is wrong; nothing was started.
    """

    def pace(workload: BaseWorkload) -> float | None:
        return earlier.pace(spec.workload, workload.params.model_dump(mode="json"))

    try:
        campaign = open_campaign(spec, policy, pace)
    except RefusedError as error:
        return end_in(Failed(message=f"refused: {error}", data=error))
    except NothingNewError as error:
        return end_in(Completed(message=f"nothing new: {error}"))
    plan = campaign.plan
    get_run_logger().info("%s: %d items; %s", campaign.store.uri, plan.num_items, plan.chunk_reason)
    return campaign
