"""The task that forecasts a campaign's cost and duration, before it starts or after the first measurements."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.dispatch import allowed
from gpu_jobs.forecast.forecast import table
from gpu_jobs.forecast.history import EarlierCampaigns, Outlook, look_ahead
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.platforms import open_platform
from tasks.artifacts import show_table

_LIKELY = 0.9


@task(name="forecast", cache_policy=NO_CACHE)
def forecast(campaign: Campaign, policy: Policy, earlier: EarlierCampaigns) -> Outlook | None:
    """Show the forecast for each platform and for all together; None if all is free or nothing was measured yet."""
    logger = get_run_logger()
    offers = allowed([offer for name in policy.platforms for offer in open_platform(name).offers()], policy)
    if not any(offer.usd_per_hour for offer in offers):
        logger.info("no forecast: GPU workers cost nothing here")
        return None
    outlook = look_ahead(campaign, campaign.snapshot(), policy, offers, earlier.samples(campaign))
    if outlook is None:
        logger.info(
            "no forecast yet: neither this campaign nor an earlier one was measured; it will follow the first items"
        )
        return None
    expected = outlook.forecast
    best = expected.option(expected.recommended)
    log = logger.info if best.complete_share >= _LIKELY else logger.warning
    log("forecast: %s", expected.why)
    header, *rows = table(expected)
    show_table(
        f"{campaign.store.uri.rpartition('/')[2]}-forecast",
        [dict(zip(header, row, strict=True)) for row in rows],
        f"Based on {expected.num_campaigns} simulated campaigns for each option. Recommended: {expected.why}",
    )
    return outlook
