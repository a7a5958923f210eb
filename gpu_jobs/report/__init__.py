"""The report: one HTML page that shows what a campaign gave, what it cost and what went wrong.

It is a view, derived from the store and overwritten whenever it is made again; nothing reads it back. It needs
nothing but itself: no script, no address to fetch from, pictures inside.
"""

from dataclasses import dataclass, replace

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.collect import Manifest
from gpu_jobs.ledger import keys
from gpu_jobs.report.facts import gather
from gpu_jobs.report.page import render
from gpu_jobs.report.picture import timeline_uri
from gpu_jobs.report.sample import Limits, read_sample, sample_text
from gpu_jobs.telemetry.snapshot import Snapshot

__all__ = ["Report", "sample_text", "write_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was written, for those who point to it."""

    uri: str
    """Of the page, in the campaign's store."""
    timeline: str
    """The page's timeline as a picture of its own, a `data:` address; "" if no GPU worker ever began."""


def write_report(campaign: Campaign, manifest: Manifest, snapshot: Snapshot | None = None) -> Report:
    """Make the report of what `manifest` published, and put it into the campaign's store.

    Args:
        campaign: of which.
        manifest: what was published.
        snapshot: what the store says of it, if the caller has read that already.
    """
    sample = replace(read_sample(campaign.store, manifest, Limits()), preview=campaign.preview())
    facts = gather(campaign, snapshot or campaign.snapshot(), manifest)
    page = render(facts, sample)
    campaign.store.put(keys.REPORT, page.encode("utf-8", "replace"))
    return Report(uri=f"{campaign.store.uri}/{keys.REPORT}", timeline=timeline_uri(facts))
