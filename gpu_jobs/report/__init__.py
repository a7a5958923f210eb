"""The report: one HTML page that shows what a campaign produced, what it cost and what went wrong.

The page is derived from the store and overwritten whenever it is made again; no code reads it. It is complete in
itself: it has no scripts, loads nothing, and contains its pictures.
"""

from dataclasses import dataclass, replace

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.manifest import Manifest
from gpu_jobs.ledger import keys
from gpu_jobs.report.facts import gather
from gpu_jobs.report.page import render
from gpu_jobs.report.picture import timeline_uri
from gpu_jobs.report.sample import SampleLimits, read_sample, sample_text
from gpu_jobs.telemetry.snapshot import Snapshot

__all__ = ["Report", "sample_text", "write_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Where the report is, for those who link to it."""

    uri: str
    """Address of the page in the campaign's store."""
    timeline: str
    """The page's timeline as a separate picture, a `data:` address; "" if no GPU worker ever started."""


def write_report(campaign: Campaign, manifest: Manifest, snapshot: Snapshot | None = None) -> Report:
    """Make the report of what `manifest` published, and write it to the campaign's store.

    Args:
        campaign: of which.
        manifest: what was published.
        snapshot: what the store says of it, if the caller has read that already.
    """
    sample = replace(read_sample(campaign.store, manifest, SampleLimits()), preview=campaign.preview())
    facts = gather(campaign, snapshot or campaign.snapshot(), manifest)
    page = render(facts, sample)
    campaign.store.put(keys.REPORT, page.encode("utf-8", "replace"))
    return Report(uri=f"{campaign.store.uri}/{keys.REPORT}", timeline=timeline_uri(facts))
