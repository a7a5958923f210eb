"""All that staffing looks at, in one place. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from gpu_jobs.dispatch.circuit_breakers import Gate, Place, gates, place_of
from gpu_jobs.dispatch.estimates import Belief, beliefs
from gpu_jobs.dispatch.state import CampaignView
from gpu_jobs.jobs.costs import left_usd
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.jobs.orders import Objective, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One look at a campaign, with what it means for every offer."""

    view: CampaignView
    offers: Sequence[Offer]
    policy: Policy
    now: datetime
    gates: Mapping[Place, Gate]
    beliefs: Mapping[OfferKey, Belief]
    """Empty while nothing was measured."""

    @classmethod
    def of(cls, view: CampaignView, offers: Sequence[Offer], policy: Policy, now: datetime) -> "Scene":
        known = beliefs(_known_offers(view, offers), view.evidence)
        return cls(view=view, offers=offers, policy=policy, now=now, gates=gates(view, offers, now), beliefs=known)

    @property
    def until_deadline_s(self) -> float | None:
        return None if self.policy.deadline is None else (self.policy.deadline - self.now).total_seconds()

    @property
    def left_usd(self) -> float | None:
        view = self.view
        return left_usd(self.policy.budget_usd, spent_usd=view.spent_usd, reserved_usd=view.reserved_usd)

    @property
    def free(self) -> int:
        """GPU workers that may be ordered beside those alive."""
        return min(self.policy.max_workers, self.view.chunks_left) - self.view.workers_wanted

    @property
    def objective(self) -> Objective:
        return self.policy.objective

    def most_hours(self, offer: Offer) -> float:
        """How long a GPU job may last from now on."""
        hours = offer.job_hours(self.policy.job_hours)
        return hours if self.until_deadline_s is None else min(hours, self.until_deadline_s / 3600)

    def may_be_had(self, offer: Offer, *, is_ideal: bool = False) -> int:
        """GPU workers that may be ordered now on an offer, in one GPU job.

        Args:
            offer: one of `offers`.
            is_ideal: as if nothing of this campaign lived elsewhere, and its place had never failed or refused.
        """
        gate = self.gates[place_of(offer)]
        most = min(self.policy.max_workers if is_ideal else self.free, offer.max_workers)
        if gate.most is not None and (gate.is_final or not is_ideal):
            most = min(most, gate.most)
        if offer.max_alive is not None:
            alive = sum(job.workers_wanted for job in self.view.jobs if job.offer.platform == offer.platform)
            most = min(most, offer.max_alive - alive)
        start_s = self.beliefs[offer.key].start_s if self.beliefs else offer.cold_start_p50_s
        is_late = self.until_deadline_s is not None and self.until_deadline_s <= start_s
        return 0 if is_late else max(0, most)


def allowed(offers: Sequence[Offer], policy: Policy) -> list[Offer]:
    """Offers whose GPU type the policy allows; a type is named by its words: "A100" means all of them."""
    wanted = [_words(gpu) for gpu in policy.gpus]
    return [offer for offer in offers if not wanted or any(each <= _words(offer.gpu) for each in wanted)]


def _known_offers(view: CampaignView, offers: Sequence[Offer]) -> list[Offer]:
    """Those that may be used, and those of GPU jobs that live on others."""
    return list({offer.key: offer for offer in (*(job.offer for job in view.jobs), *offers)}.values())


def _words(gpu: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", gpu.lower())) - {"nvidia", "geforce"}
