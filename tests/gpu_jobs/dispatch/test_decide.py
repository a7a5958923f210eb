"""`decide` against a random world: caps hold, breakers hold, it always says why, and it always comes to an end."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gpu_jobs.dispatch import CampaignView, CloseCampaign, JobView, StartJob, StopJob, decide
from gpu_jobs.jobs.failures import TREATMENTS, Failure
from gpu_jobs.testing import a_policy, an_offer
from tests.gpu_jobs.dispatch.world import BREAK_AFTER, BREAK_S, START, World

NOW = datetime(2026, 11, 24, tzinfo=UTC)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # shrinking a campaign takes minutes
QUICK = settings(max_examples=60, deadline=None)
OFFERS = st.lists(
    st.builds(
        an_offer,
        platform=st.sampled_from(["one", "two"]),
        gpu=st.sampled_from(["l4", "h100"]),
        usd_per_hour=st.sampled_from([0.0, 0.5, 1.0, 3.7]),
        speed=st.sampled_from([1.0, 3.0]),
        cold_start_p50_s=st.sampled_from([0.0, 30.0, 120.0]),
        cold_start_p90_s=st.just(150.0),
        max_workers=st.integers(1, 4),
        max_alive=st.none() | st.integers(1, 5),
        min_billed_s=st.sampled_from([0.0, 60.0]),
        idle_s=st.sampled_from([0.0, 60.0]),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda offer: (offer.platform, offer.gpu),
)
POLICIES = st.builds(
    a_policy,
    objective=st.sampled_from(["cheapest", "balanced", "fastest"]),
    max_workers=st.integers(1, 9),
    budget_usd=st.none() | st.floats(0, 40),
    job_hours=st.sampled_from([0.5, 1.0, 12.0]),
    deadline=st.none() | st.just(NOW + timedelta(hours=1)),
    max_idle_jobs=st.integers(1, 4),
    is_canary_first=st.booleans(),
)
FAILURES = st.sampled_from([failure for failure in Failure if failure is not Failure.REJECTED])
FATES = st.sampled_from(["fine", "fine", "fine", "no_capacity", "request_lost", "rejected"])


class Campaigns(RuleBasedStateMachine):
    """Every interleaving of decisions with late, duplicate and lost replies, failures and good work."""

    @initialize(offers=OFFERS, policy=POLICIES, num_items=st.integers(1, 60), data=st.data())
    def open(self, offers, policy, num_items, data):
        self.world = World(offers=offers, policy=policy, num_items=num_items)
        self.fates = []
        self.world.start_fate = lambda _offer: self.fates.pop() if self.fates else "fine"

    @rule(fates=st.lists(FATES, max_size=3), seconds=st.sampled_from([0.0, 1.0, 20.0, 400.0, 2000.0]))
    def turn(self, fates, seconds):
        self.world.pass_time(seconds)
        self.fates = fates
        self.world.decide_and_act()

    @precondition(lambda self: self.world.jobs)
    @rule(at=st.integers(0, 99))
    def reply_comes(self, at):
        self.world.see(self.world.jobs[at % len(self.world.jobs)])

    @precondition(lambda self: self.world.jobs)
    @rule(at=st.integers(0, 99), items=st.integers(1, 9))
    def items_get_done(self, at, items):
        job = self.world.jobs[at % len(self.world.jobs)]
        if job.is_alive and job.is_seen:
            self.world.work(job, items)

    @precondition(lambda self: self.world.jobs)
    @rule(at=st.integers(0, 99), failure=st.none() | FAILURES)
    def a_gpu_job_dies_unnoticed(self, at, failure):
        self.world.die(self.world.jobs[at % len(self.world.jobs)], failure)

    @precondition(lambda self: self.world.jobs)
    @rule(at=st.integers(0, 99))
    def an_end_is_told_perhaps_again(self, at):
        job = self.world.jobs[at % len(self.world.jobs)]
        if not job.is_alive:
            self.world.note(job, job.failure or Failure.LOST)

    @precondition(lambda self: self.world.jobs)
    @rule(at=st.integers(0, 99))
    def a_gpu_worker_dies(self, at):
        job = self.world.jobs[at % len(self.world.jobs)]
        if job.is_seen and job.workers_alive > 1:
            job.workers_alive -= 1

    @invariant()
    def no_dollar_beyond_the_budget(self):
        budget_usd = self.world.policy.budget_usd
        if budget_usd is not None:
            view = self.world.view()
            assert view.spent_usd + view.reserved_usd <= budget_usd + 1e-6
            assert self.world.true_usd <= budget_usd + 1e-6

    @invariant()
    def no_gpu_worker_beyond_the_limits(self):
        for decision in self.world.decisions:
            for action in decision.actions:
                if isinstance(action, StartJob):
                    assert 1 <= action.num_workers <= action.offer.max_workers
        # a GPU worker that died makes room for another, so those ordered may exceed it; those known to live may not
        jobs = [job for job in self.world.view().jobs if not job.is_starting]
        assert sum(job.workers_alive for job in jobs) <= self.world.policy.max_workers

    @invariant()
    def every_decision_says_why(self):
        for decision in self.world.decisions:
            assert decision.reason
            assert all(action.reason for action in decision.actions)
        self.world.decisions.clear()

    @invariant()
    def nothing_but_a_probe_goes_into_an_open_breaker_and_nothing_starts_too_late(self):
        for at, action, (errors, last, live) in self.world.starts:
            assert self.world.policy.deadline is None or at < self.world.policy.deadline
            if errors >= BREAK_AFTER:
                assert (action.num_workers, live) == (1, 0)
                assert (at - last).total_seconds() >= BREAK_S
        self.world.starts.clear()

    def teardown(self):
        """Whatever has happened: from here on all goes well, and it comes to an end."""
        if not hasattr(self, "world"):
            return
        world, self.fates = self.world, []
        for _ in range(300):
            world.decide_and_act()
            if world.closed and all(job.noted for job in world.jobs):
                break
            world.pass_time(240.0)
            for job in world.jobs:
                world.see(job)
                if job.is_alive and not world.closed:
                    world.work(job, 4 * job.workers_alive)
                if not job.is_alive or world.closed:
                    world.end(job, job.failure)
        assert world.closed
        assert all(job.noted for job in world.jobs)


TestCampaigns = Campaigns.TestCase
TestCampaigns.settings = settings(max_examples=50, stateful_step_count=25, deadline=None, phases=PHASES)


@st.composite
def job_views(draw):
    num_workers = draw(st.integers(1, 4))
    return JobView(
        order=f"job-{draw(st.integers(0, 99))}",
        offer=draw(OFFERS)[0],
        num_workers=num_workers,
        workers_alive=draw(st.integers(0, num_workers)),
        is_starting=draw(st.booleans()),
    )


@st.composite
def views(draw):
    items_left = draw(st.integers(0, 100))
    return CampaignView(
        num_items=100,
        items_left=items_left,
        quarantined_items=draw(st.integers(0, 100 - items_left)),
        chunks_left=draw(st.integers(1, items_left)) if items_left else 0,
        exhausted_chunk=draw(st.sampled_from(["", "", "", "000000000000-000000000001"])),
        jobs=draw(st.lists(job_views(), max_size=4)),
        reserved_usd=draw(st.floats(0, 30)),
        spent_usd=draw(st.floats(0, 30)),
        closed=draw(st.sampled_from(["", "", "by hand"])),
        closed_for_s=draw(st.floats(0, 60)),
    )


@QUICK
@given(views(), OFFERS, POLICIES)
def test_the_same_view_gives_the_same_decision(view, offers, policy):
    """No hidden state."""
    assert decide(view, offers, policy, NOW) == decide(view, offers, policy, NOW)


@QUICK
@given(views(), OFFERS, POLICIES)
def test_closing_stops_every_job_and_starts_none(view, offers, policy):
    """A campaign that cannot go on leaves nothing running; a finished one lets its GPU workers leave by themselves."""
    actions = decide(view, offers, policy, NOW).actions
    closes = any(isinstance(action, CloseCampaign) for action in actions)

    if closes:
        assert not any(isinstance(action, StartJob) for action in actions)
    if closes and view.items_left:
        assert [action.order for action in actions if isinstance(action, StopJob)] == [job.order for job in view.jobs]


@QUICK
@given(OFFERS, st.sampled_from([0.0, 30.0, 600.0]), st.sampled_from(["cheapest", "balanced", "fastest"]))
def test_work_never_starves_where_there_is_capacity(offers, tick_s, objective):
    """With no limit but the number of GPU workers, everything gets done."""
    world = World(offers=offers, policy=a_policy(max_workers=4, objective=objective), num_items=40)

    for _ in range(200):
        world.decide_and_act()
        if world.closed:
            break
        world.pass_time(max(tick_s, 1.0))
        for job in world.jobs:
            world.see(job)
            if job.is_alive:
                world.work(job, job.workers_alive)

    assert world.closed == "every item is settled"


@settings(max_examples=25, deadline=None)
@given(OFFERS, st.sampled_from(["no_capacity", "rejected", "failing"]))
def test_a_world_without_a_single_gpu_worker_is_given_up(offers, fate):
    """After hours of refusals or a few errors; and the platforms are not overrun meanwhile."""
    world = World(offers=offers, policy=a_policy(max_workers=4, max_wait_hours=1.0), num_items=40)
    world.start_fate = lambda _offer: fate

    for _ in range(4000):
        world.decide_and_act()
        if world.closed:
            break
        world.pass_time(5.0)
        for job in world.jobs:
            world.end(job, Failure.UNKNOWN)

    assert world.closed
    assert len(world.jobs) <= (30 if fate == "no_capacity" else 4) * len(offers)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"items_left": 0, "chunks_left": 0}, "every item is settled"),
        ({"exhausted_chunk": "0-1"}, "chunk 0-1 has had 50 attempts"),
        ({"quarantined_items": 51}, "51% of all items are quarantined, 50% are allowed"),
        ({"spent_usd": 9.9}, "exceed the $0.10 left of the budget"),
    ],
)
def test_why_a_campaign_is_closed(changes, reason):
    """Each way to an end says which it is."""
    view = CampaignView(num_items=100, items_left=40, quarantined_items=0, chunks_left=4)
    policy = a_policy(budget_usd=10.0, job_hours=1.0)

    (action,) = decide(replace(view, **changes), [an_offer(usd_per_hour=1.0)], policy, NOW).actions

    assert isinstance(action, CloseCampaign)
    assert reason in action.reason


def failing(*failures, offers=None, **policy):
    """A world in which the first GPU jobs have failed so."""
    world = World(offers=offers or [an_offer()], policy=a_policy(**{"max_idle_jobs": 99, **policy}), num_items=40)
    for failure in failures:
        world.decide_and_act()
        world.end(world.jobs[-1], failure)
        world.pass_time(1.0)
    return world


@pytest.mark.parametrize("failure", [failure for failure in Failure if TREATMENTS[failure].is_error])
def test_three_errors_in_a_row_close_a_campaign_on_one_offer(failure):
    """Or fewer, if the failure cannot pass; with the last one's reason."""
    world = failing(*[failure] * 3, max_idle_jobs=3)
    for _ in range(3):
        world.decide_and_act()
        world.pass_time(31.0)
        for job in world.jobs:
            world.end(job, failure)

    assert str(failure) in world.closed


@pytest.mark.parametrize("failure", [failure for failure in Failure if not TREATMENTS[failure].is_error])
def test_what_is_no_error_never_closes_a_campaign(failure):
    """However often it happens in a row."""
    world = failing(max_idle_jobs=3)
    for _ in range(12):
        world.decide_and_act()
        for job in world.jobs:
            world.end(job, failure)
        world.pass_time(301.0)

    assert not world.closed
    assert len(world.jobs) == 12


def test_refusals_pause_a_place_for_longer_each_time_and_halve_what_is_asked():
    """At once with fewer; then after 20, 40 and 80 s."""
    world = failing(max_workers=8)
    asked = []
    for second in range(160):
        world.decide_and_act()
        for job in world.jobs:
            if job.noted is None:
                asked.append((second, job.num_workers))
                world.end(job, Failure.NO_CAPACITY)
        world.pass_time(1.0)

    assert asked == [(0, 8), (1, 4), (21, 2), (61, 1), (141, 1)]


def test_an_open_breaker_lets_one_gpu_worker_try_and_closes_with_its_first_item():
    """Half-open after half a minute; while it tries nobody else does."""
    world = failing(*[Failure.UNKNOWN] * 3, max_workers=4)

    before = world.decide_and_act()
    world.pass_time(30.0)
    probe = world.decide_and_act()
    world.pass_time(5.0)
    meanwhile = world.decide_and_act()
    world.see(world.jobs[-1])
    world.work(world.jobs[-1], 1)
    after = world.decide_and_act()

    assert before.actions == meanwhile.actions == ()
    assert "3 GPU jobs in a row failed there" in before.reason
    assert [action.num_workers for action in probe.actions] == [1]
    assert [action.num_workers for action in after.actions] == [3]


def test_a_failing_place_falls_back_to_the_next_offer():
    """By itself, and the campaign is not given up."""
    offers = [an_offer(platform="cheap", usd_per_hour=0.1), an_offer(platform="expensive")]
    world = failing(*[Failure.UNKNOWN] * 3, offers=offers, max_idle_jobs=3)

    decision = world.decide_and_act()

    assert [action.offer.platform for action in decision.actions] == ["expensive"]


def test_a_fleet_in_trouble_orders_one_gpu_job_a_minute():
    """The budget of retries is shared by all locations."""
    offers = [an_offer(platform=name) for name in "abcdef"]
    world = failing(offers=offers, max_workers=1)
    for _ in range(60):
        world.decide_and_act()
        for job in world.jobs:
            world.end(job, Failure.UNKNOWN)
        world.pass_time(10.0)

    started_late = [job for job in world.jobs if (job.at - START).total_seconds() > 120]
    assert 7 <= len(started_late) <= 9


def test_out_of_memory_leads_to_a_gpu_with_more():
    """Offers with no more memory are used no more."""
    offers = [
        an_offer(gpu="l4", gpu_memory_gib=24.0),
        an_offer(gpu="a10", gpu_memory_gib=24.0, usd_per_hour=0.5),
        an_offer(gpu="h100", gpu_memory_gib=80.0, usd_per_hour=4.0),
    ]
    world = failing(Failure.OUT_OF_MEMORY, offers=offers)

    decision = world.decide_and_act()

    assert [action.offer.gpu for action in decision.actions] == ["h100"]


def test_an_empty_balance_drops_the_whole_platform():
    """Every offer of it."""
    offers = [an_offer(gpu="l4"), an_offer(gpu="h100"), an_offer(platform="other", usd_per_hour=9.0)]
    world = failing(Failure.BALANCE, offers=offers)

    decision = world.decide_and_act()

    assert [action.offer.platform for action in decision.actions] == ["other"]
