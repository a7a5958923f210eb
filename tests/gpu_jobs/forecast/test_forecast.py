"""What a campaign is expected to cost: ranges from simulated campaigns, a recommendation, and a score afterwards."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from pydantic import TypeAdapter

from gpu_jobs.campaign.campaign import Campaign, open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.forecast.forecast import ALL_PLATFORMS, Quantiles, forecast, quantiles_of, score, table
from gpu_jobs.forecast.history import EarlierCampaigns, Outlook, forecast_text, kept_outlook, look_ahead, scored
from gpu_jobs.forecast.simulator import START, SimulatedWork
from gpu_jobs.jobs.costs import WorkerSeconds
from gpu_jobs.jobs.orders import Order
from gpu_jobs.ledger.journal import Opened, Ordered
from gpu_jobs.ledger.records import Heartbeat
from gpu_jobs.telemetry.measure import samples_from
from gpu_jobs.telemetry.samples import Samples
from gpu_jobs.testing import a_policy, an_offer

CHEAP = an_offer(platform="cheap", usd_per_hour=0.4, cold_start_p50_s=120.0, cold_start_p90_s=300.0)
EXPENSIVE = an_offer(platform="expensive", usd_per_hour=1.0, cold_start_p50_s=20.0, cold_start_p90_s=60.0)
WORK = SimulatedWork(num_chunks=60, items_per_chunk=20, item_s=1.0)
POLICY = a_policy(max_workers=6)
MEASURED = {CHEAP.key: Samples(starts_s=(100.0, 130.0, 160.0) * 4, items_per_s=(0.3, 0.33, 0.36) * 4, orders=4)}


@cache
def a_forecast(**changes):
    return forecast(WORK, [CHEAP, EXPENSIVE], replace(POLICY, **changes), MEASURED, num_campaigns=20)


def test_each_platform_and_all_together_have_a_range():
    """The percentiles are in order, and a lower price gives a lower cost."""
    found = a_forecast()

    assert [option.name for option in found.options] == [ALL_PLATFORMS, "cheap", "expensive"]
    for option in found.options:
        for each in (option.usd, option.finish_s):
            assert each.p5 <= each.p50 <= each.p90 <= each.p95
    assert found.option("cheap").usd.p50 < found.option("expensive").usd.p50


def test_what_was_not_measured_has_a_wider_range():
    """Few measurements, wide ranges."""
    found = a_forecast()
    measured, guessed = found.option("cheap").finish_s, found.option("expensive").finish_s

    assert (guessed.p95 - guessed.p5) / guessed.p50 > (measured.p95 - measured.p5) / measured.p50


@pytest.mark.parametrize(
    ("objective", "best"), [("cheapest", {"cheap", ALL_PLATFORMS}), ("fastest", {"expensive", ALL_PLATFORMS})]
)
def test_the_recommendation_follows_the_aim(objective, best):
    """In words, with the second best."""
    found = a_forecast(objective=objective)

    assert found.recommended in best
    assert found.why.startswith(f"{found.recommended}: $")
    assert "the next best" in found.why


def test_a_deadline_that_is_likely_missed_is_reported_beforehand():
    """With how likely it is, and what to do."""
    found = a_forecast(deadline=START + timedelta(minutes=6))

    assert "no option gets everything done within budget and deadline" in found.why
    assert max(option.complete_share for option in found.options) < 0.9


def test_the_forecast_is_scored():
    """Within its range or outside, and by how much."""
    found = a_forecast()
    option = found.option(found.recommended)

    good = score(found, option.usd.p50, option.finish_s.p50)
    bad = score(found, 10 * option.usd.p95, option.finish_s.p50)

    assert good.count("within its range") == 2
    assert "+0% against the median" in good
    assert "OUTSIDE its range" in bad


def test_the_same_seed_gives_the_same_forecast():
    """It can be repeated by anyone."""
    assert a_forecast.__wrapped__() == a_forecast()


def test_a_range_of_one_outcome_is_that_outcome():
    """And of many, their quantiles."""
    assert quantiles_of([3.0]).holds(3.0)
    assert quantiles_of(range(1, 100)).p90 == pytest.approx(90)


def test_a_table_of_it_is_short():
    """One row for each option, the recommended one marked."""
    header, *rows = table(a_forecast())

    assert len(rows) == 3
    assert [row[-1] for row in rows].count("recommended") == 1
    assert header[0] == "option"


def beat_as_measured(world):
    """A GPU worker that reports its cold start and its work."""
    order = next(iter(Campaign(world.store, world.plan).journal.read().orders))
    (beat, _), *_ = Campaign(world.store, world.plan).ledger.heartbeats()
    seconds = WorkerSeconds(starting=5.0, model_load=15.0, working=30.0)
    Campaign(world.store, world.plan).ledger.beat(replace(beat, order=order, seconds=seconds, items_done=6))


def test_an_outlook_is_kept_and_scored_at_the_end(new_world):
    """From the campaign's own heartbeats; before anything was measured there is none."""
    offer = replace(CHEAP, platform="fake")
    world = new_world(offers=[offer])
    campaign = Campaign(world.store, world.plan)

    assert look_ahead(campaign, campaign.snapshot(), POLICY, [offer], {}) is None
    assert scored(campaign, campaign.snapshot()) == ""
    world.run_to_the_end(POLICY)
    beat_as_measured(world)
    snapshot = campaign.snapshot()
    outlook = look_ahead(campaign, snapshot, POLICY, [offer], {})

    assert outlook is not None
    assert kept_outlook(campaign) == outlook
    assert "against the median of the forecast" in scored(campaign, snapshot)
    (found,) = samples_from(snapshot.journal, snapshot.workers).values()
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
    before = EarlierCampaigns(spec.store_root).pace("noop", params)
    for entry in (
        Opened(owner="me", policy=POLICY, at=now),
        Ordered(order=order, owner="me", reason="for a test", at=now),
    ):
        campaign.journal.append(entry, upon=campaign.journal.read())
    seconds = WorkerSeconds(starting=1.0, working=30.0)
    campaign.ledger.beat(
        Heartbeat(worker_id="boot", order="order", slot=0, host="here", status="over", seconds=seconds, items_done=60)
    )

    assert before is None
    earlier = EarlierCampaigns(spec.store_root)
    assert earlier.pace("noop", params) == pytest.approx(2.0 / 4.0)
    assert earlier.pace("noop", {**params, "other": 1}) is None
    assert earlier.samples(campaign) == {}  # it is the campaign itself


def test_earlier_campaigns_are_read_once(tmp_path, monkeypatch):
    """However often pace and samples are asked for; a flow run asks three times."""
    table = tmp_path / "items.csv"
    table.write_text("id\na\nb\n")
    spec = CampaignSpec(store_root=str(tmp_path / "store"), dataset=str(table), workload="noop")
    campaigns = [open_campaign(replace(spec, name=name), replace(POLICY, platforms=("local",))) for name in "ab"]
    opened, read = [], Campaign.open
    monkeypatch.setattr(Campaign, "open", lambda uri: opened.append(uri) or read(uri))
    earlier = EarlierCampaigns(spec.store_root)

    for _ in range(2):
        earlier.pace("noop", campaigns[0].plan.params)
        earlier.samples(campaigns[0])

    assert sorted(opened) == sorted(each.store.uri for each in campaigns)


def test_money_set_aside_for_living_gpu_jobs_is_forecast_with(new_world):
    """It pays for the same work: a campaign whose whole budget is reserved is not without means."""
    offer = replace(CHEAP, platform="fake")
    world = new_world(offers=[offer])
    campaign = Campaign(world.store, world.plan)
    policy = replace(POLICY, platforms=("fake",), budget_usd=30.0)
    looks = world.run(policy)
    next(looks)
    reserved_usd = sum(order.reserved_usd for order in campaign.journal.read().live_orders)
    campaign.ledger.beat(
        Heartbeat(
            worker_id="b", order=campaign.journal.read().live_orders[0].name, slot=0, host="h", status="working",
            seconds=WorkerSeconds(starting=20.0, working=30.0), items_done=1,
        )
    )  # fmt: skip

    outlook = look_ahead(campaign, campaign.snapshot(), replace(policy, budget_usd=reserved_usd + 0.01), [offer], {})

    assert outlook is not None
    assert outlook.forecast.option(outlook.forecast.recommended).complete_share == 1.0
    looks.close()


def test_a_forecast_of_an_earlier_version_is_read():
    """Its fields had other names."""
    figures = {"low": 1.0, "half": 2.0, "most": 3.0, "high": 4.0}
    option = {"name": "mix", "usd": figures, "finish_s": figures, "complete_share": 1.0}
    forecast = {"ways": [option], "recommended": "mix", "why": "it is cheap", "num_campaigns": 60, "version": 1}

    outlook = TypeAdapter(Outlook).validate_python({"told": forecast, "at": datetime.now(UTC), "spent_usd": 0.0})

    assert outlook.forecast.option("mix").usd == Quantiles(p5=1.0, p50=2.0, p90=3.0, p95=4.0)
