"""Everything that a decision about scaling is based on. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from gpu_jobs.dispatch.circuit_breakers import CircuitBreaker, Location, circuit_breakers, location_of
from gpu_jobs.dispatch.estimates import Estimate, estimates
from gpu_jobs.dispatch.state import CampaignView
from gpu_jobs.jobs.costs import left_usd
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.jobs.orders import Objective, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionContext:
    """The state of a campaign at one moment, with what follows from it for every offer."""

    view: CampaignView
    offers: Sequence[Offer]
    policy: Policy
    now: datetime
    circuit_breakers: Mapping[Location, CircuitBreaker]
    estimates: Mapping[OfferKey, Estimate]
    """Estimates of each offer; empty until something was measured."""

    @classmethod
    def of(cls, view: CampaignView, offers: Sequence[Offer], policy: Policy, now: datetime) -> "DecisionContext":
        known = estimates(_known_offers(view, offers), view.evidence)
        return cls(
            view=view,
            offers=offers,
            policy=policy,
            now=now,
            circuit_breakers=circuit_breakers(view, offers, now),
            estimates=known,
        )

    @property
    def until_deadline_s(self) -> float | None:
        return None if self.policy.deadline is None else (self.policy.deadline - self.now).total_seconds()

    @property
    def left_usd(self) -> float | None:
        """Dollars of the budget that are neither spent nor reserved; None means that there is no budget."""
        view = self.view
        return left_usd(self.policy.budget_usd, spent_usd=view.spent_usd, reserved_usd=view.reserved_usd)

    @property
    def free_slots(self) -> int:
        """Number of GPU workers that may be ordered in addition to those alive."""
        return min(self.policy.max_workers, self.view.chunks_left) - self.view.workers_wanted

    @property
    def objective(self) -> Objective:
        return self.policy.objective

    def most_hours(self, offer: Offer) -> float:
        """Return the maximum duration of a GPU job that is ordered now."""
        hours = offer.job_hours(self.policy.job_hours)
        return hours if self.until_deadline_s is None else min(hours, self.until_deadline_s / 3600)

    def available(self, offer: Offer, *, is_ideal: bool = False) -> int:
        """Return the number of GPU workers that may be ordered now on an offer, in one GPU job.

        Args:
            offer: One of `offers`.
            is_ideal: Whether to assume that this campaign has no GPU workers elsewhere, and that the offer's location
                has never failed or refused.
        """
        breaker = self.circuit_breakers[location_of(offer)]
        most = min(self.policy.max_workers if is_ideal else self.free_slots, offer.max_workers)
        if breaker.max_workers is not None and (breaker.is_final or not is_ideal):
            most = min(most, breaker.max_workers)
        if offer.max_alive is not None:
            alive = sum(job.workers_wanted for job in self.view.jobs if job.offer.platform == offer.platform)
            most = min(most, offer.max_alive - alive)
        start_s = self.estimates[offer.key].start_s if self.estimates else offer.cold_start_p50_s
        is_late = self.until_deadline_s is not None and self.until_deadline_s <= start_s
        return 0 if is_late else max(0, most)


def allowed(offers: Sequence[Offer], policy: Policy) -> list[Offer]:
    """Return the offers whose GPU type the policy allows. Types are compared by words, so "A100" means every A100."""
    wanted = [_words(gpu) for gpu in policy.gpus]
    return [offer for offer in offers if not wanted or any(each <= _words(offer.gpu) for each in wanted)]


def _known_offers(view: CampaignView, offers: Sequence[Offer]) -> list[Offer]:
    """Return the offers that may be used, and those of GPU jobs that are alive."""
    return list({offer.key: offer for offer in (*(job.offer for job in view.jobs), *offers)}.values())


def _words(gpu: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", gpu.lower())) - {"nvidia", "geforce"}
