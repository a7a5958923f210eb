"""A flow for tests against a real server: its items take as long as they are told, one at a time."""

from pydantic import Field

from flows.campaign import CampaignParameters, CampaignSummary, run_campaign
from flows.stopping import campaign_flow
from gpu_jobs.workloads.noop import Noop, NoopParams


class OneByOne(Noop):
    """Like noop, so that a GPU worker that is stopped has finished some items of its chunk and not others."""

    micro_batch = 1


class SlowCampaign(CampaignParameters):
    """A campaign over the workload above."""

    workload = "tests.flows.served_flows:OneByOne"
    params: NoopParams = Field(default=NoopParams(), title="Noop")


@campaign_flow("slow")
def slow(campaign: SlowCampaign) -> CampaignSummary:
    return run_campaign(campaign)
