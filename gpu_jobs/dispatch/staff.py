"""From what is left, what is alive and what may be used now: which GPU jobs to start, which to stop. Pure."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from gpu_jobs.dispatch.gates import place_of, retry_pause_s
from gpu_jobs.dispatch.mix import Mix, Source, Task, best_mix
from gpu_jobs.dispatch.scene import Scene
from gpu_jobs.dispatch.view import CampaignView, Decision, Stall, StartJob, StopJob
from gpu_jobs.failures import Failure
from gpu_jobs.jobs import Policy
from gpu_jobs.money import REAPER_S, worst_case_usd
from gpu_jobs.offers import Offer, OfferKey

_MARGIN = 0.05
"""Of the time until the deadline that plans leave unused."""
_WORTH_MOVING = 0.9
"""GPU workers are stopped if the rest can be done elsewhere for less than this share of the dollars."""
_MOVED_BY = 0.92
"""Of the time that is planned with: GPU workers are stopped only if the others need no more, so that none is missed."""
_KNOWN_S = 60.0
"""GPU worker seconds of an offer that must be measured before its GPU workers are stopped for being slow or dear."""
_AWAY_S = 900.0
"""An offer that was left for its cost is not taken again for so long, lest the plan swing to and fro."""
_LEAST_HOURS = 0.25
"""Shortest GPU job that a small budget may lead to."""
_UNMEASURED_HOURS = 1.0
"""What a small budget leaves a GPU job while speeds are unknown, at least; then so many times what is left to do."""
_SPARE = 2.0
_TAIL = 0.5
"""Of a chunk, what a GPU worker does not get done because the others end first."""


def staff(view: CampaignView, offers: Sequence[Offer], policy: Policy, now: datetime) -> Decision:
    """Order the GPU workers that are missing, as far as gates, caps and money go; stop those that cost too much."""
    scene = Scene.of(view, offers, policy, now)
    if pause_s := retry_pause_s(view, now):
        return _wait(scene, f"too many GPU jobs have failed: the next is ordered in {pause_s:.0f} s")
    if not scene.beliefs:
        return _staff_unmeasured(scene)
    return _staff_measured(scene)


def _staff_unmeasured(scene: Scene) -> Decision:
    """Nothing was measured yet: the best offer by its prior, or first one canary on the best offer of each platform."""
    view, policy = scene.view, scene.policy
    ranked = sorted(scene.offers, key=lambda each: _rank(each, policy))
    is_canary = policy.is_canary_first and any(offer.usd_per_hour for offer in ranked)
    watched = {job.offer.platform for job in view.jobs} if is_canary else set()
    free, money = scene.free, scene.left_usd
    actions: list[StartJob] = []
    for offer in ranked:
        num_workers = min(1 if is_canary else free, free, scene.may_be_had(offer))
        if num_workers <= 0 or offer.platform in watched:
            continue
        start, problem = _affordable(scene, offer, num_workers, None, money)
        if start is None:
            return _start(actions) if actions else _wait(scene, problem, Stall.WAITING_FOR_BUDGET)
        actions.append(start)
        free -= start.num_workers
        if is_canary:
            watched.add(offer.platform)
        if money is not None:
            money -= worst_case_usd(offer, start.num_workers, start.hours)
    if actions:
        return _start(actions)
    if is_canary and view.jobs:
        return _wait(scene, "canaries measure cold start and speed before the others start")
    return _wait_for_workers(scene)


def _staff_measured(scene: Scene) -> Decision:
    """The best mix of GPU workers alive and new ones; what it lacks is ordered, what it has no use for is stopped."""
    alive, task = _alive(scene), _task(scene)
    new = {_name(offer): offer for offer in scene.offers}
    left = _left(scene)
    mix = _with_new(scene, alive, task, [offer for offer in scene.offers if offer.key not in left])
    if left and (mix is None or not mix.covers):
        mix = _with_new(scene, alive, task, scene.offers)
    if mix is None:
        return _wait_for_workers(scene)
    if stops := _moves(scene, mix, alive, task):
        return Decision(actions=tuple(stops), reason=stops[0].reason)
    actions: list[StartJob] = []
    money = scene.left_usd
    searched_usd = _searched_usd_per_item(scene, mix)
    for source, wanted in mix.counts:
        if source.usd_per_s / source.items_per_s > searched_usd:
            continue
        num_workers = min(wanted, scene.free - sum(action.num_workers for action in actions))
        if source.name not in new or num_workers <= 0:
            continue
        start, problem = _affordable(scene, new[source.name], num_workers, mix, money)
        if start is None:
            return _start(actions) if actions else _wait(scene, problem, Stall.WAITING_FOR_BUDGET)
        actions.append(start)
        if money is not None:
            money -= worst_case_usd(start.offer, start.num_workers, start.hours)
    return _start(actions) if actions else _wait_for_workers(scene, mix)


def _with_new(scene: Scene, alive: Sequence[Source], task: Task, offers: Sequence[Offer]) -> Mix | None:
    """The best mix of all that live and new ones on these offers."""
    more = [_new(scene, offer, scene.may_be_had(offer)) for offer in offers]
    later = [_later(scene, offer) for offer in offers]
    return best_mix([*alive, *more, *later], replace(task, keeps_alive=True), scene.objective)


def _left(scene: Scene) -> set[OfferKey]:
    """Offers whose GPU workers were stopped for their cost not long ago: ordered again only if the deadline asks it."""
    since = scene.now - timedelta(seconds=_AWAY_S)
    return {end.offer.key for end in scene.view.ends if end.is_stopped and end.failure is None and end.at >= since}


def _searched_usd_per_item(scene: Scene, mix: Mix) -> float:
    """Of the cheapest place in the mix of which is not known yet how much it has: nothing dearer is ordered till then.

    Infinite if there is none, or no time to lose.
    """
    if scene.objective != "cheapest" or not mix.covers:
        return math.inf
    searched = {name for offer in scene.offers if scene.gates[place_of(offer)].is_searched for name in _names(offer)}
    return min((each.usd_per_s / each.items_per_s for each, _ in mix.counts if each.name in searched), default=math.inf)


def _task(scene: Scene) -> Task:
    most: dict[str, int] = {}
    for offer in scene.offers:
        if offer.max_alive is not None:
            most[offer.platform] = offer.max_alive
    latest_s = scene.until_deadline_s
    return Task(
        items=scene.view.items_left,
        max_workers=min(scene.policy.max_workers, scene.view.chunks_left),
        platform_most=most,
        latest_s=None if latest_s is None else (1 - _MARGIN) * latest_s,
    )


def _alive(scene: Scene) -> list[Source]:
    """GPU workers that live, at today's prices; those that start are nearer to work than new ones."""
    prices = {offer.key: offer.usd_per_hour for offer in scene.offers}
    sources = []
    for job in scene.view.jobs:
        belief = scene.beliefs[job.offer.key]
        waited_s = job.age_s if job.is_starting or not job.has_lived else belief.slow_start_s
        tail_items, unbilled_s = _tail(scene, job.offer)
        usd_per_hour = prices.get(job.offer.key, job.offer.usd_per_hour)
        sources.append(
            Source(
                name=job.order,
                is_new=False,
                platform=job.offer.platform,
                most=job.workers_wanted,
                ready_s=max(0.0, belief.start_s - waited_s),
                items_per_s=belief.items_per_s,
                usd_per_s=usd_per_hour / 3600,
                tail_items=tail_items,
                unbilled_s=unbilled_s,
                idle_s=job.offer.idle_s,
                is_start_billed=job.offer.is_start_billed,
            )
        )
    return sources


def _new(scene: Scene, offer: Offer, most: int) -> Source:
    belief = scene.beliefs[offer.key]
    tail_items, unbilled_s = _tail(scene, offer)
    return Source(
        name=_name(offer),
        is_new=True,
        platform=offer.platform,
        most=most,
        ready_s=belief.start_s,
        items_per_s=belief.items_per_s,
        usd_per_s=offer.usd_per_hour / 3600,
        tail_items=tail_items,
        unbilled_s=unbilled_s,
        least_billed_s=offer.min_billed_s,
        idle_s=offer.idle_s,
        is_start_billed=offer.is_start_billed,
    )


def _later(scene: Scene, offer: Offer) -> Source:
    """GPU workers that a place without capacity may have after its pause: planned with, and not ordered now."""
    gate = scene.gates[place_of(offer)]
    soon = _new(scene, offer, min(gate.later, max(0, scene.free), offer.max_workers))
    return replace(soon, name=_names(offer)[1], ready_s=soon.ready_s + gate.later_s)


def _tail(scene: Scene, offer: Offer) -> tuple[float, float]:
    """Items that a GPU worker does not get done because chunks end at different times, and seconds not paid for."""
    items = _TAIL * scene.view.items_left / scene.view.chunks_left
    belief = scene.beliefs[offer.key]
    return items, max(0.0, items / belief.items_per_s - belief.start_s)


def _moves(scene: Scene, mix: Mix, alive: Sequence[Source], task: Task) -> list[StopJob]:
    """GPU jobs that cost so much that the rest of the work is better done elsewhere, cold starts included."""
    movable = [job for job in scene.view.jobs if job.items_done and _is_known(scene, job.offer)]
    if scene.objective == "fastest" or not movable:
        return []
    scarce = {place_of(end.offer) for end in scene.view.ends if end.failure in (Failure.NO_CAPACITY, Failure.QUOTA)}
    sure = [offer for offer in scene.offers if place_of(offer) not in scarce]
    elsewhere = [_new(scene, offer, scene.may_be_had(offer, is_free=True)) for offer in sure]
    if task.latest_s is not None:
        task = replace(task, latest_s=_MOVED_BY * task.latest_s)
    ideal = best_mix([*alive, *elsewhere], task, scene.objective)
    if ideal is None or not ideal.covers or ideal.usd >= _WORTH_MOVING * mix.usd:
        return []
    unused = {source.name for source in alive if not ideal.of(source)}
    return [
        StopJob(
            order=job.order,
            reason=f"the rest costs about ${ideal.usd:.2f} elsewhere, cold starts included, and ${mix.usd:.2f} here",
        )
        for job in movable
        if job.order in unused
    ]


def _is_known(scene: Scene, offer: Offer) -> bool:
    """Enough was measured of it to stop GPU workers for what it tells."""
    found = scene.view.evidence.get(offer.key)
    return found is not None and found.working_s >= _KNOWN_S


def _affordable(
    scene: Scene, offer: Offer, num_workers: int, mix: Mix | None, money: float | None
) -> tuple[StartJob | None, str]:
    """As many of the GPU workers, for as long, as the money is enough for; or why not even one."""
    most_hours = scene.most_hours(offer)
    reason = _reason(scene, mix)
    if money is None or not offer.usd_per_hour:
        return StartJob(offer=offer, num_workers=num_workers, hours=most_hours, reason=reason), ""
    hours = most_hours
    if mix is not None:
        slow_start_s = scene.beliefs[offer.key].slow_start_s
        hours = min(most_hours, max(_LEAST_HOURS, (_SPARE * mix.finish_s + slow_start_s) / 3600))
    elif worst_case_usd(offer, num_workers, hours) > money:
        hours = min(most_hours, _UNMEASURED_HOURS)
    count = num_workers
    while count > 1 and worst_case_usd(offer, count, hours) > money:
        count = min(count - 1, int(money / worst_case_usd(offer, 1, hours)))
    if count < 1 or worst_case_usd(offer, count, hours) > money:
        count, hours = (
            1,
            min(hours, money / offer.usd_per_hour - (REAPER_S + offer.idle_s + offer.granularity_s) / 3600),
        )
    if hours < min(_LEAST_HOURS, most_hours) or worst_case_usd(offer, count, hours) > money:
        cost_usd = worst_case_usd(offer, num_workers, most_hours)
        return None, f"${cost_usd:.2f} for {num_workers} GPU workers exceed the ${money:.2f} left of the budget"
    return StartJob(offer=offer, num_workers=count, hours=hours, reason=reason), ""


def _reason(scene: Scene, mix: Mix | None) -> str:
    view, policy = scene.view, scene.policy
    reason = (
        f"{view.chunks_left} chunks are open and {view.workers_wanted} of {policy.max_workers} GPU workers are alive"
    )
    if mix is None:
        return reason
    if not mix.covers:
        return f"{reason}; all that may be had, since the deadline will hardly be met"
    ends = f"{reason}; the {policy.objective} way ends in about {_minutes(mix.finish_s)}"
    if scene.until_deadline_s is None:
        return ends
    return f"{ends}, {_minutes(scene.until_deadline_s - mix.finish_s)} before the deadline"


def _start(actions: Sequence[StartJob]) -> Decision:
    return Decision(actions=tuple(actions), reason=actions[0].reason)


def _wait(scene: Scene, reason: str, stall: Stall | None = None) -> Decision:
    return Decision(actions=(), reason=reason, stall=None if scene.view.workers_wanted else stall)


def _wait_for_workers(scene: Scene, mix: Mix | None = None) -> Decision:
    """Nothing is ordered, and why."""
    view = scene.view
    at_work = f"{view.workers_wanted} GPU workers are at work"
    if scene.free <= 0:
        return _wait(scene, f"{at_work}, {scene.policy.max_workers} are allowed")
    closed = {place: gate.why for place, gate in scene.gates.items() if gate.most == 0}
    if closed and len(closed) == len(scene.gates):
        told = "; ".join(f"{place.platform} {place.gpu}: {why}" for place, why in closed.items())
        return _wait(scene, f"{at_work}; {told}", Stall.WAITING_FOR_CAPACITY)
    if mix is not None:
        return _wait(scene, f"{at_work} and will be done in about {_minutes(mix.finish_s)}; more would not pay")
    return _wait(scene, f"{at_work}; no other could start in time", Stall.WAITING_FOR_CAPACITY)


def _rank(offer: Offer, policy: Policy) -> tuple[float, float]:
    """The best offer first, by what is known before anything was measured."""
    match policy.objective:
        case "fastest":
            return -offer.worker_speed, offer.cold_start_p50_s
        case "balanced":
            return offer.usd_per_hour / offer.worker_speed**1.5, offer.cold_start_p50_s
        case _:
            return offer.usd_per_hour / offer.worker_speed, offer.cold_start_p50_s


def _name(offer: Offer) -> str:
    return " ".join(map(str, offer.key))


def _names(offer: Offer) -> tuple[str, str]:
    """Of its new GPU workers, now and after a pause."""
    return _name(offer), f"{_name(offer)} later"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"  # noqa: PLR2004 - a minute and a half
