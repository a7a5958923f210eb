"""From what is left, what is alive and what may be used now: which GPU jobs to start, which to stop. Pure."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from gpu_jobs.dispatch.canaries import staff_unmeasured
from gpu_jobs.dispatch.candidates import alive_sources, later_source, name_of, names_of, new_source, task_of
from gpu_jobs.dispatch.circuit_breakers import place_of, retry_pause_s
from gpu_jobs.dispatch.context import Scene
from gpu_jobs.dispatch.estimates import PRIOR_WORK_S
from gpu_jobs.dispatch.optimizer import Mix, Source, Task, best_mix
from gpu_jobs.dispatch.orders import order, wait, wait_for_workers
from gpu_jobs.dispatch.state import CampaignView, Decision, OrderEnd, StopJob
from gpu_jobs.durations import duration
from gpu_jobs.jobs.offers import Offer, OfferKey
from gpu_jobs.jobs.orders import Policy

_WORTH_MOVING, _WORTH_GUESSING = 0.9, 0.7
"""GPU workers are stopped if what they do can be done elsewhere for less than this share of the dollars; the lower one
while the prior of the speed elsewhere outweighs what was measured."""
_MOVED_BY = 0.92
"""Of the time that is planned with: GPU workers are stopped only if the others need no more, so that none is missed."""
_KNOWN_S = 45.0
"""GPU worker seconds of an offer that must be measured before its GPU workers are stopped for being slow or dear."""
_LATELY_S = 900.0
"""An offer that was left for its cost is not taken again for so long, lest the plan swing to and fro; and work is not
moved to a place that has failed or refused in that time."""


def staff(view: CampaignView, offers: Sequence[Offer], policy: Policy, now: datetime) -> Decision:
    """Order the GPU workers that are missing, as far as gates, caps and money go; stop those that cost too much."""
    scene = Scene.of(view, offers, policy, now)
    if pause_s := retry_pause_s(view, now):
        return wait(scene, f"too many GPU jobs have failed: the next is ordered in {duration(pause_s)}")
    if not scene.beliefs:
        return staff_unmeasured(scene)
    return _staff_measured(scene)


def _staff_measured(scene: Scene) -> Decision:
    """The best mix of GPU workers alive and new ones: what it lacks is ordered, then what costs too much is stopped."""
    alive, task = alive_sources(scene), task_of(scene)
    mix = _plan(scene, alive, task)
    if mix is None:
        return wait_for_workers(scene)
    ideal = _ideal(scene, alive, task)
    dear = _dear(scene, mix, ideal, alive) if ideal else []
    if ideal is None or not dear:
        return _order(scene, mix)
    decision = _order(scene, ideal)
    if decision.actions or not (stops := _stops(scene, ideal, dear)):
        return decision
    reason = f"the rest costs about ${ideal.usd:.2f} elsewhere, cold starts included, and ${mix.usd:.2f} here"
    return Decision(actions=tuple(StopJob(order=order, reason=reason) for order in stops), reason=reason)


def _order(scene: Scene, mix: Mix) -> Decision:
    """The new GPU workers of the mix; none dearer than those of a place of which is not known yet how many it has."""
    offers = {name_of(offer): offer for offer in scene.offers}
    most_usd = _searched_usd_per_item(scene, mix)
    wanted = [
        (offers[source.name], min(count, scene.may_be_had(offers[source.name])))
        for source, count in mix.counts
        if source.name in offers and source.usd_per_item <= most_usd
    ]
    return order(scene, wanted, mix)


def _plan(scene: Scene, alive: Sequence[Source], task: Task) -> Mix | None:
    """The best mix that keeps these; offers lately left for their cost are used again only where all else is worse."""
    mix = _with_new(scene, alive, task, scene.offers)
    if mix is None or not (left := _left(scene)):
        return mix
    others = _with_new(scene, alive, task, [offer for offer in scene.offers if offer.key not in left])
    return others if others and others.covers and others.usd <= mix.usd / _WORTH_MOVING else mix


def _with_new(scene: Scene, alive: Sequence[Source], task: Task, offers: Sequence[Offer]) -> Mix | None:
    """The best mix of all that live and new ones on these offers."""
    more = [new_source(scene, offer, scene.may_be_had(offer)) for offer in offers]
    later = [later_source(scene, offer) for offer in offers]
    return best_mix([*alive, *more, *later], replace(task, keeps_alive=True), scene.objective)


def _ideal(scene: Scene, alive: Sequence[Source], task: Task) -> Mix | None:
    """The best mix if GPU workers alive were free to go, with time to spare; None if there is none.

    A place that has failed or refused, but not lately, is taken to have as many GPU workers as it ever might: what it
    really has one of them will tell.
    """
    failed = {place_of(end.offer) for end in _lately(scene) if end.failure and not end.items_done}
    sure = [offer for offer in scene.offers if place_of(offer) not in failed]
    elsewhere = [_hoped_for(scene, offer) for offer in sure]
    if task.latest_s is not None:
        task = replace(task, latest_s=_MOVED_BY * task.latest_s)
    mix = best_mix([*alive, *elsewhere], task, scene.objective)
    return mix if mix and mix.covers else None


def _hoped_for(scene: Scene, offer: Offer) -> Source:
    """New GPU workers on an offer; where one must try first, the others start only once it has."""
    source = new_source(scene, offer, scene.may_be_had(offer, is_ideal=True))
    is_tried = scene.gates[place_of(offer)].most is not None
    return replace(source, ready_s=2 * source.ready_s) if is_tried else source


def _dear(scene: Scene, mix: Mix, ideal: Mix, alive: Sequence[Source]) -> list[str]:
    """GPU jobs whose part of the work is better done elsewhere, cold starts included."""
    if scene.objective == "fastest" or ideal.usd >= mix.usd:
        return []
    elsewhere = {source.name for source, _ in ideal.counts if source.is_new}
    is_guess = any(name_of(each) in elsewhere and _measured_s(scene, each) < PRIOR_WORK_S for each in scene.offers)
    dear_usd = ideal.usd / scene.view.items_left / (_WORTH_GUESSING if is_guess else _WORTH_MOVING)
    keys = {job.order: job.offer.key for job in scene.view.jobs}
    kept = {keys.get(source.name) for source, _ in ideal.counts}
    return [each.name for each in alive if keys[each.name] not in kept and each.usd_per_item > dear_usd]


def _stops(scene: Scene, ideal: Mix, dear: Sequence[str]) -> list[str]:
    """Of these GPU jobs, those of which enough was measured, once there are others in their place.

    Where no more are allowed before some have gone: the smallest.
    """
    known = [
        job
        for job in scene.view.jobs
        if job.order in dear and job.items_done and _measured_s(scene, job.offer) >= _KNOWN_S
    ]
    wanted = {source.name for source, _ in ideal.counts if source.is_new}
    if not wanted:
        return [job.order for job in known]
    open_now = [offer for offer in scene.offers if name_of(offer) in wanted and scene.gates[place_of(offer)].most != 0]
    smallest = sorted(known, key=lambda job: job.workers_wanted)[:1]
    return [job.order for job in smallest] if scene.free <= 0 and open_now else []


def _left(scene: Scene) -> set[OfferKey]:
    """Offers whose GPU workers were stopped for their cost not long ago: ordered again only where all else is worse."""
    return {end.offer.key for end in _lately(scene) if end.is_stopped and end.failure is None}


def _lately(scene: Scene) -> list[OrderEnd]:
    since = scene.now - timedelta(seconds=_LATELY_S)
    return [end for end in scene.view.ends if end.at >= since]


def _searched_usd_per_item(scene: Scene, mix: Mix) -> float:
    """Of the cheapest place in the mix of which is not known yet how much it has: nothing dearer is ordered till then.

    Infinite if there is none, or no time to lose.
    """
    if scene.objective != "cheapest" or not mix.covers:
        return math.inf
    searched = {name for offer in scene.offers if scene.gates[place_of(offer)].is_searched for name in names_of(offer)}
    return min((each.usd_per_item for each, _ in mix.counts if each.name in searched), default=math.inf)


def _measured_s(scene: Scene, offer: Offer) -> float:
    """GPU worker seconds of work that were measured on an offer."""
    found = scene.view.evidence.get(offer.key)
    return found.working_s if found else 0.0
