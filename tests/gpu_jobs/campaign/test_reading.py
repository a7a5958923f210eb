"""What a look at a campaign costs in calls of its store, however many GPU workers have died."""

from gpu_jobs.campaign import observer
from gpu_jobs.campaign.loop import Loop
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.platforms.event_loop import Background
from gpu_jobs.testing import FakePlatform, a_policy, plan_campaign
from tests.bench.observe import MAX_LISTINGS, MAX_READS, NUM_ALIVE, CountingStore, OldCampaign, cost_of


def test_a_turn_reads_what_is_alive(monkeypatch):
    """With 2,000 dead GPU workers and 2,000 journal entries, and with a survey, which not every turn has."""
    monkeypatch.setattr(observer, "_MIN_SURVEY_PAUSE_S", 0.0)
    monkeypatch.setattr(observer, "_SURVEY_SHARE", float("inf"))
    store = CountingStore()
    campaign = OldCampaign(store)
    with Background() as background:
        turn = campaign.turns(background)
        turn()
        campaign.live_workers_beat()
        second = cost_of(store, turn)
        third = cost_of(store, turn)

    assert 1 < second.listings <= MAX_LISTINGS
    assert NUM_ALIVE < second.reads <= MAX_READS
    assert third.reads == second.reads - NUM_ALIVE


def test_a_turn_that_orders_reads_no_more():
    """Before it orders, it makes sure that work is left; chunks that this look has listed are not listed again."""
    store = CountingStore()
    platform = FakePlatform()
    with Background() as background:
        loop = Loop(Ledger(store), plan_campaign(store), a_policy(), [platform], owner="me", background=background)
        loop.open()
        cost = cost_of(store, loop.turn)

    assert len(platform.jobs) == 1
    assert cost.listings <= MAX_LISTINGS
