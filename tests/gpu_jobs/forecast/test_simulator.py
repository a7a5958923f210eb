"""The simulated world: the same seed gives the same campaign, and items, seconds and dollars add up."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_jobs.forecast.simulator import START, OfferBehaviour, SimulatedWork, as_offered, lognormal, simulate
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.testing import a_policy, an_offer

CHEAP = an_offer(platform="cheap", usd_per_hour=0.4, cold_start_p50_s=120.0, cold_start_p90_s=300.0, max_workers=50)
EXPENSIVE = an_offer(
    platform="expensive", usd_per_hour=1.0, cold_start_p50_s=20.0, cold_start_p90_s=60.0, max_workers=50
)
WORK = SimulatedWork(num_chunks=200, items_per_chunk=20, item_s=3.0, weight=lognormal(1.0, 1.5))
POLICY = a_policy(max_workers=20)


@given(
    st.integers(0, 1000),
    st.sampled_from(["cheapest", "balanced", "fastest"]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 2.0]),
    st.none() | st.floats(1, 8),
)
@settings(max_examples=20, deadline=None)
def test_items_seconds_and_dollars_add_up(seed, objective, error_share, preemptions_per_hour, budget_usd):
    """Whatever fails or is preempted; and the budget holds."""
    trouble = {"error_share": error_share, "preemptions_per_hour": preemptions_per_hour}
    behaviours = [replace(as_offered(offer), **trouble) for offer in (CHEAP, EXPENSIVE)]
    policy = replace(POLICY, objective=objective, budget_usd=budget_usd, max_idle_jobs=9)

    outcome = simulate(WORK, behaviours, policy, seed)

    done = sum(outcome.items_by_platform.values())
    assert done == WORK.num_items if outcome.is_complete else done < WORK.num_items
    assert outcome.closed
    assert sum(outcome.usd_by_platform.values()) == pytest.approx(outcome.usd)
    prices = {"cheap": 0.4, "expensive": 1.0}
    least, most = min(prices.values()), max(prices.values())
    assert (
        least - 1e-6 <= 3600 * outcome.usd / max(1e-9, sum(outcome.seconds.values())) <= most + 1e-6 or not outcome.usd
    )
    assert min(outcome.seconds.values()) >= -1e-6
    assert budget_usd is None or outcome.usd <= budget_usd


def test_the_same_seed_gives_the_same_campaign():
    """And another seed another one."""
    behaviours = [as_offered(CHEAP), as_offered(EXPENSIVE)]

    assert simulate(WORK, behaviours, POLICY, 7) == simulate(WORK, behaviours, POLICY, 7)
    assert simulate(WORK, behaviours, POLICY, 7).usd != simulate(WORK, behaviours, POLICY, 8).usd


def test_without_chance_it_takes_what_it_must():
    """One GPU worker: its cold start, then its items one after another, and nothing else is billed."""
    behaviour = OfferBehaviour(offer=EXPENSIVE, start_s=lambda _: 20.0, speed=lambda _: 2.0)
    work = SimulatedWork(num_chunks=10, items_per_chunk=10, item_s=4.0)

    outcome = simulate(work, [behaviour], a_policy(max_workers=1), 0)

    assert outcome.finish_s == pytest.approx(20.0 + 100 * 4.0 / 2.0)
    assert outcome.usd == pytest.approx(220 / 3600)
    assert outcome.seconds["useful"] == pytest.approx(200.0)
    assert outcome.seconds["starting"] == pytest.approx(20.0)


def test_an_unbilled_start_costs_nothing():
    """It takes its time all the same."""
    offer = replace(EXPENSIVE, is_start_billed=False)
    work = SimulatedWork(num_chunks=10, items_per_chunk=10, item_s=4.0)

    outcome = simulate(
        work, [OfferBehaviour(offer=offer, start_s=lambda _: 20.0, speed=lambda _: 2.0)], a_policy(max_workers=1), 0
    )

    assert outcome.finish_s == pytest.approx(220.0)
    assert outcome.usd == pytest.approx(200 / 3600)
    assert (outcome.seconds["starting"], sum(outcome.seconds.values())) == pytest.approx((0.0, 200.0))


def test_idle_gpu_workers_share_what_one_has_in_hand():
    """One chunk of an hour on two GPU workers ends long before an hour."""
    behaviour = OfferBehaviour(offer=EXPENSIVE, start_s=lambda _: 200.0, speed=lambda _: 1.0)

    def run(max_workers):
        weights = iter([0.01, 1.99])
        work = SimulatedWork(num_chunks=2, items_per_chunk=360, item_s=5.0, weight=lambda _: next(weights))
        return simulate(work, [behaviour], a_policy(max_workers=max_workers), 0)

    lone, outcome = run(1), run(2)

    assert outcome.is_complete
    assert outcome.finish_s < 0.75 * lone.finish_s


def test_a_second_attempt_cuts_the_tail_of_a_slow_gpu_worker():
    """One item that cannot be shared, on a GPU worker a hundred times slower than others; its loss is booked."""

    def run(hedge_share):
        speeds = iter([0.01])
        behaviour = OfferBehaviour(offer=EXPENSIVE, start_s=lambda _: 20.0, speed=lambda _: next(speeds, 1.0))
        work = SimulatedWork(num_chunks=12, items_per_chunk=1, item_s=100.0)
        return simulate(work, [behaviour], a_policy(max_workers=2, hedge_share=hedge_share), 0)

    without, hedged = run(0.0), run(0.5)

    assert without.finish_s > 9_000
    assert hedged.finish_s < 3_000
    assert hedged.seconds["hedged"] > 0


def test_stock_is_found_without_asking_often():
    """Seven GPU workers are there, fifty are asked for at first."""
    behaviour = replace(as_offered(CHEAP), stock=7)

    outcome = simulate(WORK, [behaviour], a_policy(max_workers=50, objective="fastest"), 3)

    assert outcome.is_complete
    assert outcome.refused["cheap"] <= 30


def test_a_dead_platform_is_left_alone_and_another_does_the_work():
    """Requests into it are bounded by the breaker's probes."""
    outcome = simulate(WORK, [replace(as_offered(CHEAP), is_down=True), as_offered(EXPENSIVE)], POLICY, 3)

    assert outcome.is_complete
    assert outcome.items_by_platform == {"expensive": WORK.num_items}
    assert outcome.refused["cheap"] <= 3 + 1 + outcome.finish_s / 30


def test_a_change_befalls_an_offer_at_its_time():
    """A quota that closes for ten minutes delays, and no more."""
    behaviour = replace(
        as_offered(CHEAP), changes=((0.0, {"stock": 0, "refusal": Failure.QUOTA}), (600.0, {"stock": None}))
    )

    outcome = simulate(WORK, [behaviour], POLICY, 3)

    assert outcome.is_complete
    assert outcome.first_item_s > 600


def test_nothing_is_billed_after_the_deadline():
    """GPU workers end at it, and what is done stays done."""
    policy = replace(POLICY, max_workers=2, deadline=START + timedelta(minutes=20))

    outcome = simulate(WORK, [as_offered(CHEAP)], policy, 3)

    assert not outcome.is_complete
    assert "deadline" in outcome.closed
    assert sum(outcome.seconds.values()) <= 2 * 1200 + 2
    assert outcome.items_by_platform["cheap"] > 0
