"""While nothing was measured: the best offer by its prior, or canaries first. Pure."""

from collections.abc import Sequence

from gpu_jobs.dispatch.context import Scene
from gpu_jobs.dispatch.orders import order, wait
from gpu_jobs.dispatch.state import Decision
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Policy

_MUCH_SOONER = 0.5
"""A second canary is worth its dollars if it starts in this share of the first one's time."""


def staff_unmeasured(scene: Scene) -> Decision:
    """Order the best offers by their priors; or canaries, and then wait for what they tell."""
    ranked = sorted(scene.offers, key=lambda each: _rank(each, scene.policy))
    if not scene.policy.is_canary_first or all(offer.usd_per_hour == 0 for offer in ranked):
        return order(scene, [(offer, scene.may_be_had(offer)) for offer in ranked])
    canaries = _canaries(scene, ranked)
    if not canaries and scene.view.jobs:
        return wait(scene, "canaries measure cold start and speed before the others start")
    return order(scene, [(offer, 1) for offer in canaries])


def _canaries(scene: Scene, ranked: Sequence[Offer]) -> list[Offer]:
    """The best offer that may be had and, in a hurry, one beside it that tells much sooner how fast the work goes.

    Of platforms that have a canary already, none.
    """
    watched = {job.offer.platform for job in scene.view.jobs}
    able = [offer for offer in ranked if offer.platform in watched or scene.may_be_had(offer) > 0]
    wanted = able[:1]
    if able and (scene.objective != "cheapest" or scene.policy.deadline is not None):
        soon = min(able, key=lambda each: each.cold_start_p50_s)
        if soon.cold_start_p50_s < _MUCH_SOONER * able[0].cold_start_p50_s:
            wanted.append(soon)
    return [offer for offer in wanted if offer.platform not in watched]


def _rank(offer: Offer, policy: Policy) -> tuple[float, float]:
    """The best offer first, by what is known before anything was measured."""
    match policy.objective:
        case "fastest":
            return -offer.worker_speed, offer.cold_start_p50_s
        case "balanced":
            return offer.usd_per_hour / offer.worker_speed**1.5, offer.cold_start_p50_s
        case _:
            return offer.usd_per_hour / offer.worker_speed, offer.cold_start_p50_s
