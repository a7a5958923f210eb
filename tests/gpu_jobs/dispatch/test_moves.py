"""When work moves between offers, and who goes first while nothing was measured."""

from dataclasses import replace
from datetime import timedelta

from gpu_jobs.dispatch import (
    CampaignView,
    OrderEnd,
    StopJob,
)
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.telemetry.samples import Evidence
from tests.gpu_jobs.dispatch.scenes import CHEAP, EXPENSIVE, NOW, a_job, a_view, choose, refused, started


def test_measured_speed_counts_more_than_the_price_list():
    """A platform that turns out ten times slower loses the rest of the work."""
    slow = Evidence(items=1_000, working_s=10_000)
    view = a_view(evidence={CHEAP.key: slow, EXPENSIVE.key: Evidence(items=10_000, working_s=10_000)}, jobs=[a_job()])

    stopped = choose(view, [CHEAP, EXPENSIVE], max_workers=4)
    after = choose(replace(view, jobs=()), [CHEAP, EXPENSIVE], max_workers=4)

    (stop,) = stopped.actions
    assert isinstance(stop, StopJob)
    assert "elsewhere, with cold starts" in stop.reason
    assert set(started(after)) == {"expensive"}


def test_a_price_that_changes_moves_the_rest_of_the_work():
    """The offers' price of today counts, not that of the order; others are ordered first, then these are stopped."""
    view, today = a_view(jobs=[a_job()]), [replace(CHEAP, usd_per_hour=4.0), EXPENSIVE]

    before = choose(view, [CHEAP, EXPENSIVE])
    first = choose(view, today)
    enough = a_job(
        EXPENSIVE, order="job-2", num_workers=18, workers_alive=18, items_done=0, is_starting=True, age_s=1.0
    )
    (stop,) = choose(replace(view, jobs=[a_job(), enough]), today).actions

    assert started(before).keys() == {"cheap"}
    assert started(first).keys() == {"expensive"}
    assert isinstance(stop, StopJob)
    assert stop.order == "job-1"


def test_where_no_other_gpu_worker_is_allowed_the_smallest_expensive_gpu_job_makes_room():
    """The others work on until its place is taken: elsewhere there may be none available."""
    jobs = [a_job(order="large"), a_job(order="small", num_workers=1, workers_alive=1)]

    (stop,) = choose(a_view(jobs=jobs), [replace(CHEAP, usd_per_hour=4.0), EXPENSIVE], max_workers=5).actions

    assert isinstance(stop, StopJob)
    assert stop.order == "small"


def test_gpu_jobs_of_an_offer_that_is_needed_are_not_expensive():
    """To stop one of several and order another like it later would cost a cold start."""
    jobs = [a_job(order=f"job-{number}", num_workers=1, workers_alive=1) for number in range(8)]

    assert choose(a_view(items_left=2_000, jobs=jobs), [CHEAP, EXPENSIVE]).actions == ()


def test_no_work_moves_for_a_fifth_of_the_dollars_by_a_guess():
    """What was measured elsewhere for minutes is no guess."""
    cheaper, jobs = replace(EXPENSIVE, usd_per_hour=0.28, cold_start_p50_s=20.0), [a_job()]
    measured = {offer.key: Evidence(items=1_000, working_s=1_000) for offer in (CHEAP, cheaper)}

    by_guess = choose(a_view(jobs=jobs), [CHEAP, cheaper], max_workers=4)
    by_measure = choose(a_view(jobs=jobs, evidence=measured), [CHEAP, cheaper], max_workers=4)

    assert by_guess.actions == ()
    assert isinstance(by_measure.actions[0], StopJob)


def test_no_work_moves_to_a_place_that_has_lately_refused():
    """Later it may."""
    view, today = a_view(jobs=[a_job()]), [replace(CHEAP, usd_per_hour=4.0), replace(EXPENSIVE, max_workers=4)]
    lately, before = (refused(4, NOW - timedelta(minutes=minutes), EXPENSIVE) for minutes in (14, 16))
    moved = [choose(replace(view, ends=[end]), today, max_workers=4).actions for end in (lately, before)]

    assert moved[0] == ()
    assert isinstance(moved[1][0], StopJob)


FRESH = CampaignView(num_items=900, items_left=900, quarantined_items=0, chunks_left=90)
HURRY = {"is_canary_first": True, "deadline": NOW + timedelta(hours=2)}


def test_a_canary_goes_first_until_it_has_measured():
    """Then the others follow; where all is free there is none."""
    canary = a_job(num_workers=1, workers_alive=1, items_done=0)

    meanwhile = choose(replace(FRESH, jobs=[canary]), [CHEAP, EXPENSIVE], is_canary_first=True)

    assert started(choose(FRESH, [CHEAP, EXPENSIVE], is_canary_first=True)) == {"cheap": 1}
    assert meanwhile.actions == ()
    assert "canaries measure" in meanwhile.reason
    assert started(choose(FRESH, [replace(CHEAP, usd_per_hour=0.0)], is_canary_first=True)) == {"cheap": 50}


def test_in_a_hurry_a_second_canary_tells_sooner():
    """Where there is a deadline, and another platform starts in half the time."""
    slow = replace(EXPENSIVE, cold_start_p50_s=100.0)

    assert started(choose(FRESH, [CHEAP, EXPENSIVE], **HURRY)) == {"cheap": 1, "expensive": 1}
    assert started(choose(FRESH, [CHEAP, slow], **HURRY)) == {"cheap": 1}


def test_where_the_best_place_refuses_the_next_best_has_the_canary():
    """Nobody waits for what cannot be had."""
    found = choose(replace(FRESH, ends=[refused(1)]), [CHEAP, EXPENSIVE], is_canary_first=True)

    assert started(found) == {"expensive": 1}


def test_what_was_left_for_its_cost_is_taken_again_only_if_the_deadline_asks_it():
    """Lest the plan swing to and fro, at the price of a cold start each time."""
    at = NOW - timedelta(minutes=10)
    stopped = OrderEnd(offer=CHEAP, num_workers=4, at=at, items_done=9, failure=None, is_stopped=True)
    long_ago = replace(stopped, at=NOW - timedelta(minutes=20))
    view = a_view(jobs=[a_job()], ends=[stopped])

    assert choose(view, [CHEAP]).actions == ()
    assert started(choose(replace(view, ends=[long_ago]), [CHEAP]))
    assert started(choose(view, [CHEAP], deadline=NOW + timedelta(hours=1)))


def test_a_canary_on_a_expensive_platform_is_let_go_once_measured():
    """Its measurements are there, and the rest is cheaper elsewhere."""
    canary = a_job(EXPENSIVE, order="canary", num_workers=1, workers_alive=1, items_done=60)
    measured = {CHEAP.key: Evidence(items=60, working_s=60), EXPENSIVE.key: Evidence(items=90, working_s=90)}
    view = a_view(evidence=measured, jobs=[a_job(), canary])

    (stop,) = choose(view, [CHEAP, EXPENSIVE], max_workers=5, deadline=NOW + timedelta(hours=2.5)).actions

    assert isinstance(stop, StopJob)
    assert stop.order == "canary"


def test_of_gpu_jobs_on_one_offer_none_is_expensive_if_another_is_needed():
    """Cheap ones cannot do it all in time; those that help them stay, more than are needed or not."""
    measured = {offer.key: Evidence(items=10_000, working_s=10_000) for offer in (CHEAP, EXPENSIVE)}
    jobs = [
        a_job(),
        *(a_job(EXPENSIVE, order=f"expensive-{count}", num_workers=count, workers_alive=count) for count in (6, 4)),
    ]
    view = a_view(jobs=jobs, evidence=measured)

    decision = choose(view, [replace(CHEAP, max_alive=4), EXPENSIVE], deadline=NOW + timedelta(hours=1.2))

    assert decision.actions == ()


def failed(offer, minutes):
    at = NOW - timedelta(minutes=minutes)
    return [OrderEnd(offer=offer, num_workers=1, at=at, items_done=0, failure=Failure.UNKNOWN) for _ in range(3)]


def test_a_cheap_place_that_failed_long_ago_is_tried_by_one_gpu_worker():
    """In the place of the smallest GPU job, where no more are allowed; not while its failures are fresh."""
    jobs = [a_job(EXPENSIVE, order=f"job-{count}", num_workers=count, workers_alive=count) for count in (1, 3)]
    view = a_view(jobs=jobs, evidence={EXPENSIVE.key: Evidence(items=10_000, working_s=10_000)})

    fresh = choose(replace(view, ends=failed(CHEAP, 14)), [CHEAP, EXPENSIVE], max_workers=4)
    (stop,) = choose(replace(view, ends=failed(CHEAP, 16)), [CHEAP, EXPENSIVE], max_workers=4).actions
    after = choose(replace(view, ends=failed(CHEAP, 16), jobs=jobs[1:]), [CHEAP, EXPENSIVE], max_workers=4)

    assert fresh.actions == ()
    assert isinstance(stop, StopJob)
    assert stop.order == "job-1"
    assert started(after) == {"cheap": 1}


def test_until_the_one_that_tries_has_done_something_nobody_else_goes():
    """It may fail like those before."""
    trying = a_job(order="trying", num_workers=1, workers_alive=1, items_done=0, age_s=60.0)
    view = a_view(
        jobs=[trying, a_job(EXPENSIVE)],
        ends=failed(CHEAP, 16),
        evidence={EXPENSIVE.key: Evidence(items=10_000, working_s=10_000)},
    )

    assert choose(view, [CHEAP, EXPENSIVE], max_workers=5).actions == ()
    worked = replace(view, jobs=[replace(trying, items_done=60), a_job(EXPENSIVE)])
    assert isinstance(choose(worked, [CHEAP, EXPENSIVE], max_workers=5).actions[0], StopJob)


def test_whoever_waits_for_the_one_that_tries_must_still_be_in_time():
    """The others start only once it has: that is two cold starts, of which the deadline may have time for one."""
    view = a_view(
        items_left=4_000, jobs=[a_job(EXPENSIVE)], evidence={EXPENSIVE.key: Evidence(items=10_000, working_s=10_000)}
    )
    soon = NOW + timedelta(seconds=1_400)

    never_failed = choose(view, [CHEAP, EXPENSIVE], max_workers=4, deadline=soon)
    failed_once = choose(replace(view, ends=failed(CHEAP, 16)), [CHEAP, EXPENSIVE], max_workers=4, deadline=soon)

    assert isinstance(never_failed.actions[0], StopJob)
    assert failed_once.actions == ()
