"""One campaign: planned, run, collected, cleaned up after."""

from gpu_jobs.campaign.campaign import Campaign, open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.plan import CampaignSpec

__all__ = ["Campaign", "CampaignSpec", "collect", "open_campaign"]
