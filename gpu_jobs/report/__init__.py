"""The report: one HTML page that shows what a campaign gave, what it cost and what went wrong.

It is a view, derived from the store and overwritten whenever it is made again; nothing reads it back. It needs
nothing but itself: no script, no address to fetch from, pictures inside.
"""

from gpu_jobs import layout
from gpu_jobs.campaign import Campaign
from gpu_jobs.collect import Manifest
from gpu_jobs.report.facts import gather
from gpu_jobs.report.page import render
from gpu_jobs.report.sample import Limits, read_sample, sample_text

__all__ = ["sample_text", "write_report"]


def write_report(campaign: Campaign, manifest: Manifest) -> str:
    """Make the report of what `manifest` published, put it into the campaign's store, and return its uri."""
    sample = read_sample(campaign.store, manifest, Limits())
    page = render(gather(campaign, manifest), sample)
    campaign.store.put(layout.REPORT, page.encode("utf-8", "replace"))
    return f"{campaign.store.uri}/{layout.REPORT}"
