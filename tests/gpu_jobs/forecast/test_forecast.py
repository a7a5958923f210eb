"""What a campaign is expected to cost: ranges from simulated campaigns, a recommendation, and a score afterwards."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest

from gpu_jobs.campaign.campaign import Campaign, open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.forecast.forecast import MIX, forecast, quantile_range, score, table
from gpu_jobs.forecast.history import earlier_pace, forecast_text, kept_outlook, look_ahead, samples_of, scored
from gpu_jobs.forecast.simulator import START, Work
from gpu_jobs.jobs.orders import Order
from gpu_jobs.ledger.journal import Opened, Ordered
from gpu_jobs.ledger.ledger import Heartbeat
from gpu_jobs.telemetry.samples import Samples
from gpu_jobs.testing import a_policy, an_offer

CHEAP = an_offer(platform="cheap", usd_per_hour=0.4, cold_start_p50_s=120.0, cold_start_p90_s=300.0)
DEAR = an_offer(platform="dear", usd_per_hour=1.0, cold_start_p50_s=20.0, cold_start_p90_s=60.0)
WORK = Work(num_chunks=60, items_per_chunk=20, item_s=1.0)
POLICY = a_policy(max_workers=6)
MEASURED = {CHEAP.key: Samples(starts_s=(100.0, 130.0, 160.0) * 4, items_per_s=(0.3, 0.33, 0.36) * 4, orders=4)}


@cache
def told(**changes):
    return forecast(WORK, [CHEAP, DEAR], replace(POLICY, **changes), MEASURED, num_campaigns=20)


def test_each_platform_and_the_mix_have_a_range():
    """Half below the middle, nine of ten below the higher figure."""
    found = told()

    assert [way.name for way in found.ways] == [MIX, "cheap", "dear"]
    for way in found.ways:
        for each in (way.usd, way.finish_s):
            assert each.low <= each.half <= each.most <= each.high
    assert found.way("cheap").usd.half < found.way("dear").usd.half


def test_what_was_not_measured_has_a_wider_range():
    """Few measurements, wide ranges."""
    found = told()
    measured, guessed = found.way("cheap").finish_s, found.way("dear").finish_s

    assert (guessed.high - guessed.low) / guessed.half > (measured.high - measured.low) / measured.half


@pytest.mark.parametrize(("objective", "best"), [("cheapest", {"cheap", MIX}), ("fastest", {"dear", MIX})])
def test_the_recommendation_follows_the_aim(objective, best):
    """In words, with the second best."""
    found = told(objective=objective)

    assert found.recommended in best
    assert found.why.startswith(f"{found.recommended}: $")
    assert "the next best" in found.why


def test_a_deadline_that_is_likely_missed_is_told_beforehand():
    """With how likely it is, and what to do."""
    found = told(deadline=START + timedelta(minutes=6))

    assert "no way gets everything done within budget and deadline" in found.why
    assert max(way.complete_share for way in found.ways) < 0.9


def test_the_forecast_is_scored():
    """Within its range or outside, and by how much."""
    found = told()
    way = found.way(found.recommended)

    good = score(found, way.usd.half, way.finish_s.half)
    bad = score(found, 10 * way.usd.high, way.finish_s.half)

    assert good.count("within its range") == 2
    assert "+0% against the middle" in good
    assert "OUTSIDE its range" in bad


def test_the_same_seed_gives_the_same_forecast():
    """It can be repeated by anyone."""
    assert told.__wrapped__() == told()


def test_a_range_of_one_outcome_is_that_outcome():
    """And of many, their quantiles."""
    assert quantile_range([3.0]).holds(3.0)
    assert quantile_range(range(1, 100)).most == pytest.approx(90)


def test_a_table_of_it_is_short():
    """One row for each way, the recommended one marked."""
    header, *rows = table(told())

    assert len(rows) == 3
    assert [row[-1] for row in rows].count("recommended") == 1
    assert header[0] == "way"


def beat_as_measured(world):
    """A GPU worker that tells of its cold start and its work."""
    order = next(iter(Campaign(world.store, world.plan).journal.read().orders))
    (beat, _) = next(Campaign(world.store, world.plan).ledger.heartbeats())
    seconds = {"starting": 5.0, "model_load": 15.0, "working": 30.0, "idle": 0.0}
    Campaign(world.store, world.plan).ledger.beat(replace(beat, order=order, seconds=seconds, items_done=6))


def test_an_outlook_is_kept_and_scored_at_the_end(new_world):
    """From the campaign's own heartbeats; before anything was measured there is none."""
    offer = replace(CHEAP, platform="fake")
    world = new_world(offers=[offer])
    campaign = Campaign(world.store, world.plan)
    now = datetime.now(UTC)

    assert look_ahead(campaign, POLICY, [offer], now) is None
    assert scored(campaign) == ""
    world.run_to_the_end(POLICY)
    beat_as_measured(world)
    outlook = look_ahead(campaign, POLICY, [offer], now)

    assert outlook is not None
    assert kept_outlook(campaign) == outlook
    assert "against the middle of the forecast" in scored(campaign)
    (found,) = samples_of(campaign).values()
    assert found.items_per_s == pytest.approx((0.2,))


def test_the_outlook_of_a_campaign_that_is_not_planned_is_refused(tmp_path):
    """With one clear message."""
    with pytest.raises(Exception, match="there is no campaign at"):
        forecast_text(str(tmp_path / "nothing"), POLICY, [CHEAP])


def test_earlier_campaigns_tell_what_weight_a_gpu_worker_does_in_a_second(tmp_path):
    """Of the same workload and parameters only, in units of a GPU worker of speed 1."""
    offer, now = replace(CHEAP, speed=4.0), datetime.now(UTC)
    table = tmp_path / "items.csv"
    table.write_text("id\na\nb\n")
    spec = CampaignSpec(store_root=str(tmp_path / "store"), dataset=str(table), workload="noop")
    campaign = open_campaign(spec, replace(POLICY, platforms=("local",)))
    params = campaign.plan.params
    order = Order(name="order", campaign_uri="", offer=offer, num_workers=1, expires_at=now, reserved_usd=0.0)
    before = earlier_pace(spec.store_root, "noop", params)
    for entry in (
        Opened(opener="me", policy=POLICY, at=now),
        Ordered(order=order, opener="me", reason="for a test", at=now),
    ):
        campaign.journal.append(entry, upon=campaign.journal.read())
    seconds = {"starting": 1.0, "working": 30.0}
    campaign.ledger.beat(
        Heartbeat(boot="boot", order="order", slot=0, host="here", status="over", seconds=seconds, items_done=60)
    )

    assert before is None
    assert earlier_pace(spec.store_root, "noop", params) == pytest.approx(2.0 / 4.0)
    assert earlier_pace(spec.store_root, "noop", {**params, "other": 1}) is None
