"""The old place of `CampaignSpec`, kept for code that imports it from here; import it from `gpu_jobs.campaign`."""

from gpu_jobs.campaign import CampaignSpec

__all__ = ["CampaignSpec"]
