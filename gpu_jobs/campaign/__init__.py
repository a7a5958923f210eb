"""Everything that happens to one campaign: it is planned, run, collected and cleaned up."""

from gpu_jobs.campaign.campaign import Campaign, open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.plan import CampaignSpec

__all__ = ["Campaign", "CampaignSpec", "collect", "open_campaign"]
