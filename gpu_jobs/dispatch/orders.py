"""Orders that the money is enough for, and words for what is decided. Pure."""

from collections.abc import Iterable

from gpu_jobs.dispatch.context import Scene
from gpu_jobs.dispatch.optimizer import Mix
from gpu_jobs.dispatch.state import Decision, Stall, StartJob
from gpu_jobs.durations import duration
from gpu_jobs.jobs.costs import REAPER_S, worst_case_usd
from gpu_jobs.jobs.offers import Offer

_LEAST_HOURS = 0.25
"""Shortest GPU job that a small budget may lead to."""
_UNMEASURED_HOURS = 1.0
"""What a small budget leaves a GPU job while speeds are unknown, at least; then so many times what is left to do."""
_SPARE = 2.0


def order(scene: Scene, wanted: Iterable[tuple[Offer, int]], mix: Mix | None = None) -> Decision:
    """Order so many GPU workers of these offers, as far as slots and money go, or say why none."""
    actions: list[StartJob] = []
    free, money = scene.free, scene.left_usd
    for offer, count in wanted:
        if min(count, free) <= 0:
            continue
        start, problem = _affordable(scene, offer, min(count, free), mix, money)
        if start is None and not actions:
            return wait(scene, problem, Stall.WAITING_FOR_BUDGET)
        if start is None:
            break
        actions.append(start)
        free -= start.num_workers
        if money is not None:
            money -= worst_case_usd(offer, start.num_workers, start.hours)
    if actions:
        return Decision(actions=tuple(actions), reason=actions[0].reason)
    return wait_for_workers(scene, mix)


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
    ends = f"{reason}; the {policy.objective} way ends in about {duration(mix.finish_s)}"
    if scene.until_deadline_s is None:
        return ends
    return f"{ends}, {duration(scene.until_deadline_s - mix.finish_s)} before the deadline"


def wait(scene: Scene, reason: str, stall: Stall | None = None) -> Decision:
    return Decision(actions=(), reason=reason, stall=None if scene.view.workers_wanted else stall)


def wait_for_workers(scene: Scene, mix: Mix | None = None) -> Decision:
    """Nothing is ordered, and why."""
    view = scene.view
    at_work = f"{view.workers_wanted} GPU workers are at work"
    if scene.free <= 0:
        return wait(scene, f"{at_work}, {scene.policy.max_workers} are allowed")
    closed = {place: gate.why for place, gate in scene.gates.items() if gate.most == 0}
    if closed and len(closed) == len(scene.gates):
        told = "; ".join(f"{place.platform} {place.gpu}: {why}" for place, why in closed.items())
        return wait(scene, f"{at_work}; {told}", Stall.WAITING_FOR_CAPACITY)
    if mix is not None:
        return wait(scene, f"{at_work} and will be done in about {duration(mix.finish_s)}; more would not pay")
    return wait(scene, f"{at_work}; no other could start in time", Stall.WAITING_FOR_CAPACITY)
