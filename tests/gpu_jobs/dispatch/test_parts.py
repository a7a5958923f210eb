"""Parts of `decide`, each in a few scenes: the allocation, the budget, stalls, the last chunks."""

from dataclasses import replace
from datetime import timedelta

import pytest

from gpu_jobs.dispatch import (
    CampaignView,
    CloseCampaign,
    HedgeChunk,
    LeaseView,
    Stall,
    StopJob,
)
from gpu_jobs.jobs.costs import worst_case_usd
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.telemetry.samples import Evidence
from gpu_jobs.testing import an_offer
from tests.gpu_jobs.dispatch.scenes import CHEAP, EXPENSIVE, FAST, NOW, a_job, a_view, choose, refused, started


def test_with_time_enough_the_cheapest_gpu_workers_do_it_all():
    """As many as cost hardly more than few."""
    found = started(choose(a_view(), [CHEAP, EXPENSIVE], deadline=NOW + timedelta(hours=3)))

    assert set(found) == {"cheap"}


def test_what_the_cheap_ones_cannot_do_in_time_the_expensive_ones_do():
    """Only eight cheap GPU workers are available: they are all taken, and expensive ones fill up."""
    scarce = replace(CHEAP, max_alive=8)

    found = started(choose(a_view(), [scarce, EXPENSIVE], deadline=NOW + timedelta(hours=1)))

    assert found["cheap"] == 8
    assert 2 <= found["expensive"] <= 5


def test_the_fastest_way_takes_all_gpu_workers_that_may_be_had():
    """The fast ones first."""
    assert started(choose(a_view(), [CHEAP, FAST], objective="fastest")) == {"fast": 50}


def test_the_balanced_way_lies_in_between():
    """Cheaper than the fastest, sooner than the cheapest."""
    counts = {
        objective: sum(started(choose(a_view(), [CHEAP], objective=objective)).values())
        for objective in ("cheapest", "balanced", "fastest")
    }

    assert counts["cheapest"] < counts["balanced"] <= counts["fastest"]


def test_where_few_gpu_workers_are_allowed_faster_ones_are_paid_for():
    """Two slow ones would miss the deadline; two fast ones do not."""
    found = started(choose(a_view(), [CHEAP, FAST], max_workers=3, deadline=NOW + timedelta(hours=1.2)))

    assert found.get("fast", 0) >= 2


def test_no_gpu_worker_starts_that_could_not_pay_back_its_cold_start():
    """A minute's work is left for those alive; a cold start takes two."""
    view = a_view(items_left=240, chunks_left=30, jobs=[a_job()])

    decision = choose(view, [CHEAP], objective="fastest")

    assert decision.actions == ()
    assert "more would not be worth their cost" in decision.reason


@pytest.mark.parametrize(("is_start_billed", "best"), [(True, "cheap"), (False, "free-start")])
def test_a_start_that_is_not_billed_makes_a_more_expensive_hour_cheaper(is_start_billed, best):
    """Five minutes' work after two minutes' start, a tenth more expensive by the hour."""
    other = replace(CHEAP, platform="free-start", usd_per_hour=0.44, is_start_billed=is_start_billed)
    known = Evidence(items=10_000, working_s=10_000, starts=9, start_s=9 * 120.0)
    view = a_view(items_left=300, chunks_left=30, evidence={CHEAP.key: known, other.key: known})

    assert set(started(choose(view, [CHEAP, other], max_workers=1))) == {best}


@pytest.mark.parametrize("gpus", [("L4",), ("nvidia l4",), ("l4", "h100")])
def test_only_allowed_gpu_types_are_used(gpus):
    """By the words of their names; an L40S is no L4."""
    offers = [an_offer(gpu=gpu, usd_per_hour=usd) for gpu, usd in (("L40S", 0.1), ("NVIDIA L4", 1.0), ("A100", 0.1))]

    (action,) = choose(
        CampaignView(num_items=9, items_left=9, quarantined_items=0, chunks_left=9), offers, gpus=gpus
    ).actions

    assert action.offer.gpu == "NVIDIA L4"


def test_a_gpu_type_that_nobody_offers_closes_the_campaign():
    """And is named."""
    (action,) = choose(a_view(), [CHEAP], gpus=("B200",)).actions

    assert isinstance(action, CloseCampaign)
    assert action.reason == "no platform offers B200"


def test_a_deadline_that_is_too_near_starts_nothing():
    """Nobody pays for a cold start that ends after it."""
    (action,) = choose(a_view(), [CHEAP], deadline=NOW + timedelta(seconds=90)).actions

    assert isinstance(action, CloseCampaign)
    assert "too close for a GPU worker to start" in action.reason


def test_a_small_budget_buys_short_gpu_jobs():
    """Their worst case is within what is left, and long enough for the work."""
    view = a_view(items_left=3_600, spent_usd=1.0)

    decision = choose(view, [CHEAP], budget_usd=2.2, job_hours=12.0)

    (action,) = decision.actions
    assert worst_case_usd(CHEAP, action.num_workers, action.hours) <= 1.2
    assert action.hours * action.num_workers >= 1.0


def test_near_the_budget_those_at_work_go_on_and_no_other_starts():
    """Named as waiting for budget only when nothing is left at work."""
    view = a_view(jobs=[a_job(num_workers=1, workers_alive=1)], spent_usd=9.0, reserved_usd=0.95)

    decision = choose(view, [CHEAP], budget_usd=10.0)

    assert decision.actions == ()
    assert "left of the budget" in decision.reason


@pytest.mark.parametrize(
    ("changes", "stall"),
    [
        ({}, None),
        ({"is_starting": True, "has_lived": False, "age_s": 100.0}, None),
        ({"is_starting": True, "has_lived": False, "age_s": 700.0}, Stall.STARTING_TOO_LONG),
        ({"has_lived": False, "age_s": 1300.0}, Stall.NEVER_STARTED),
        ({"workers_idle": 4}, Stall.STARVED),
        ({"silent_s": 1000.0}, Stall.NO_PROGRESS),
    ],
)
def test_every_stall_has_a_name(changes, stall):
    """By how long it starts, by its idle GPU workers, by its silence."""
    found = choose(a_view(jobs=[a_job(**changes)]), [CHEAP], max_workers=4).stalls

    assert found == ({} if stall is None else {"job-1": stall})


def test_what_never_started_is_stopped_and_held_against_its_platform():
    """It may be billed."""
    view = a_view(jobs=[a_job(is_starting=True, has_lived=False, age_s=1300.0, items_done=0)])

    (stop,) = (action for action in choose(view, [CHEAP], max_workers=4).actions if isinstance(action, StopJob))

    assert (stop.order, stop.failure) == ("job-1", Failure.TIMEOUT)
    assert "21 min 40 s ago" in stop.reason


def a_lease(**changes):
    lease = LeaseView(chunk="chunk-1", offer=CHEAP, items_left=1, items_per_s=0.0, age_s=900.0)
    return replace(lease, **changes)


OTHERS = [LeaseView(chunk=f"chunk-{n}", offer=CHEAP, items_left=60, items_per_s=1.0, age_s=40.0) for n in (2, 3)]


@pytest.mark.parametrize(
    ("lease", "hedge_share", "idle", "hedged"),
    [
        ({}, 0.05, 1, True),
        ({}, 0.0, 1, False),
        ({}, 0.05, 0, False),
        ({"is_hedged": True}, 0.05, 1, False),
        ({"items_left": 60, "items_per_s": 0.1}, 0.05, 1, False),
        ({"items_left": 1, "items_per_s": 0.9}, 0.05, 1, False),
        ({"items_left": 1, "items_per_s": 0.005}, 0.05, 1, True),
    ],
)
def test_a_second_attempt_is_made_where_it_pays(lease, hedge_share, idle, hedged):
    """At what cannot be shared, if it ends much sooner, with an idle GPU worker, within the hedge budget."""
    view = a_view(
        items_left=121,
        chunks_left=3,
        jobs=[a_job(workers_idle=idle)],
        leases=[a_lease(**lease), *OTHERS],
        spent_usd=5.0,
    )

    found = [
        action for action in choose(view, [CHEAP], hedge_share=hedge_share).actions if isinstance(action, HedgeChunk)
    ]

    assert [action.chunk for action in found] == (["chunk-1"] if hedged else [])
    assert all("a second attempt costs" in action.reason for action in found)


def test_while_a_cheap_place_is_asked_for_less_no_expensive_gpu_worker_takes_the_slots():
    """First it is found out how much it has; with three refusals the others are asked."""
    ends = [refused(4, NOW - timedelta(minutes=3)) for _ in range(3)]
    late = {"deadline": NOW + timedelta(hours=1.2), "max_workers": 12}

    searching = started(choose(a_view(ends=ends[:1]), [CHEAP, EXPENSIVE], **late))
    given_up = started(choose(a_view(ends=[*ends, refused(4)]), [CHEAP, EXPENSIVE], **late))

    assert set(searching) == {"cheap"}
    assert "expensive" in given_up
