"""Compare platforms by running one workload on each in turn. Without a dataset, published figures are compared.

python -m flows.compare_platforms
python -m flows.compare_platforms --workload noop --dataset texts.parquet --platforms '["local"]'
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from prefect import flow
from prefect.logging import get_run_logger
from prefect.states import Failed
from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import CliApp

from flows.parameters import PlatformName
from gpu_jobs.campaign.campaign import Campaign, new_owner, open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.errors import FanfoldError, RefusedError
from gpu_jobs.forecast.benchmark import from_campaign, measured_warm_starts
from gpu_jobs.forecast.comparison import NOTES, PUBLISHED, Figures, Volume, choose_when, from_published, table
from gpu_jobs.jobs.costs import left_usd
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.platforms import known_offers, open_platform
from gpu_jobs.report.comparison import chart_uri, page
from gpu_jobs.store import open_store
from tasks.artifacts import show_summary, show_table
from tasks.outcome import end_in

_PAGE = "comparison.html"
_MEASURED = "Measured by this flow."
_PUBLISHED = (
    "From published figures, in a simulated month. Published items/s are assumed to be those of one GPU worker."
)


class ComparePlatforms(BaseModel):
    """What to compare, and for how many items a month."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(
        default="", title="Dataset", description="Empty: published figures are simulated, and nothing is rented"
    )
    workload: str = Field(default="noop", title="Workload", description="A built-in name or package.module:Class")
    params: dict[str, str | int | float | bool] = Field(default={}, title="What to do")
    platforms: list[PlatformName] = Field(
        default=[each.platform for each in PUBLISHED], title="Platforms", min_length=1
    )
    store_root: str = Field(default="./fanfold-store", title="Store")
    name: str = Field(
        default="comparison", title="Name", description="Names of the campaigns begin with it and end with the platform"
    )
    max_workers: int = Field(
        default=2, ge=1, title="GPU workers", description="The most GPU workers on each platform at the same time"
    )
    budget_usd: float | None = Field(
        default=None, ge=0, title="Budget, dollars", description="For each platform; empty: no limit"
    )
    items_a_month: int = Field(default=10_000_000, ge=1, title="Items a month")
    campaigns_a_month: int = Field(default=30, ge=1, title="Campaigns a month")

    @property
    def volume(self) -> Volume:
        return Volume(items=self.items_a_month, campaigns=self.campaigns_a_month, max_workers=self.max_workers)


@flow(name="compare-platforms")
def compare_platforms(compare: ComparePlatforms) -> str:
    """Run the workload on each platform, or simulate published figures; return the address of the page.

    Raises:
        RefusedError: a platform cannot be used as requested.
    """
    try:
        figures = _measured(compare) if compare.dataset else _published(compare)
    except RefusedError as error:
        return end_in(Failed(message=f"refused: {error}", data=error))
    if not figures:
        return end_in(Failed(message="no platform has finished an item, so there is nothing to compare"))
    source = _MEASURED if compare.dataset else _PUBLISHED
    store = open_store(compare.store_root)
    store.put(_PAGE, page(figures, compare.volume, source).encode())
    where = f"{store.uri}/{_PAGE}"
    show_table(f"{compare.name}-platforms", table(figures), source)
    advice = "\n".join(f"- {sentence}" for sentence in choose_when(figures))
    words = "\n".join(f"- **{name}**: {meaning}" for name, meaning in NOTES)
    show_summary(compare.name, f"![dollars a month]({chart_uri(figures)})\n\n{advice}\n\nPage: `{where}`\n\n{words}")
    get_run_logger().info("%s; page: %s", " ".join(choose_when(figures)), where)
    return where


def _published(compare: ComparePlatforms) -> list[Figures]:
    return [
        from_published(each, compare.volume, known_offers([each.platform]))
        for each in PUBLISHED
        if each.platform in compare.platforms
    ]


class _Planned(NamedTuple):
    """The campaigns that will be run on one platform."""

    policy: Policy
    offers: Sequence[Offer]
    campaign: Campaign
    warm: Campaign | None
    """The campaign that measures warm starts, if the platform keeps containers; planned early, as these end soon."""


def _measured(compare: ComparePlatforms) -> list[Figures]:
    """Run one campaign after another, so that they do not compete for this machine or for a quota."""
    found = []
    for platform, planned in [(platform, _plan(compare, platform)) for platform in compare.platforms]:
        for progress in planned.campaign.run(planned.policy):
            last = progress
        get_run_logger().info("%s: %s", platform, last.closed)
        warm = planned.warm
        if warm is not None and last.jobs and not measured_warm_starts(warm, platform):
            budget_usd = left_usd(compare.budget_usd, spent_usd=last.spent_usd, reserved_usd=last.reserved_usd)
            idle_s = max(offer.idle_s for offer in planned.offers)
            closed = measure_start(warm, replace(planned.policy, budget_usd=budget_usd), within_s=idle_s)
            get_run_logger().info("%s, warm: %s", platform, closed)
        figures = from_campaign(planned.campaign, platform, compare.volume, planned.offers, warm=warm)
        if figures is not None:
            found.append(figures)
    return found


def _plan(compare: ComparePlatforms, platform: str) -> _Planned:
    def opened(name: str) -> Campaign:
        spec = CampaignSpec(
            store_root=compare.store_root,
            dataset=compare.dataset,
            workload=compare.workload,
            params=compare.params,
            name=f"{compare.name}-{platform.replace('_', '-')}{name}",
        )
        return open_campaign(spec, policy)

    policy = Policy(platforms=(platform,), max_workers=compare.max_workers, budget_usd=compare.budget_usd)
    offers = open_platform(platform).offers()
    warm = opened("-warm") if any(offer.idle_s for offer in offers) else None
    return _Planned(policy, offers, opened(""), warm)


def measure_start(campaign: Campaign, policy: Policy, *, within_s: float) -> str:
    """Run a campaign until one GPU worker is working, then stop it to save money; return why it was closed.

    Args:
        campaign: a campaign that was not run yet.
        policy: the limits for it.
        within_s: if no GPU worker sends a heartbeat within so many seconds, the campaign is stopped.
    """
    owner, begun = new_owner(), time.monotonic()
    for progress in campaign.run(policy, owner=owner):
        if any(job.seconds.working for job in progress.jobs):
            campaign.stop("a start was measured", owner=owner)
        elif time.monotonic() - begun > within_s and not any(job.has_lived for job in progress.jobs):
            campaign.stop("no GPU worker started in time", owner=owner)
    return progress.closed


def main() -> int:
    try:
        sys.stdout.write(f"{compare_platforms(CliApp.run(ComparePlatforms))}\n")
    except FanfoldError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
