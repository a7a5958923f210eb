"""`decide` against a random world: it never asks for too much, it always says why, and it always comes to an end."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_jobs.dispatch import CampaignView, CloseCampaign, JobView, StartJob, StopJob, decide
from gpu_jobs.money import worst_case_usd
from gpu_jobs.testing import a_policy, an_offer

NOW = datetime(2026, 11, 24, tzinfo=UTC)
QUICK = settings(max_examples=250, deadline=None)
PRICES = st.sampled_from([0.0, 0.5, 1.0, 3.7])
OFFERS = st.lists(
    st.builds(lambda usd, most: an_offer(usd_per_hour=usd, max_workers=most), PRICES, st.integers(1, 4)),
    min_size=1,
    max_size=3,
)
POLICIES = st.builds(
    a_policy,
    max_workers=st.integers(1, 9),
    budget_usd=st.none() | st.floats(0, 40),
    job_hours=st.sampled_from([0.5, 1.0, 12.0]),
    deadline=st.none() | st.just(NOW + timedelta(hours=1)),
    max_idle_jobs=st.integers(1, 4),
)


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
        idle_jobs_in_a_row=draw(st.integers(0, 4)),
        last_failure="no capacity",
        reserved_usd=draw(st.floats(0, 30)),
        spent_usd=draw(st.floats(0, 30)),
        closed=draw(st.sampled_from(["", "", "by hand"])),
        closed_for_s=draw(st.floats(0, 60)),
    )


def wanted_workers(jobs):
    return sum(job.num_workers if job.is_starting else job.workers_alive for job in jobs)


@QUICK
@given(views(), OFFERS, POLICIES)
def test_no_decision_goes_beyond_the_policy(view, offers, policy):
    """Not more GPU workers than allowed or than there are chunks, and no dollar beyond the budget."""
    for action in decide(view, offers, policy, NOW).actions:
        if isinstance(action, StartJob):
            wanted = wanted_workers(view.jobs) + action.num_workers
            cost_usd = worst_case_usd(action.offer, action.num_workers, policy.job_hours)
            assert action.num_workers >= 1
            assert wanted <= min(policy.max_workers, view.chunks_left)
            assert action.num_workers <= action.offer.max_workers
            assert action.offer in offers
            assert policy.budget_usd is None or view.spent_usd + view.reserved_usd + cost_usd <= policy.budget_usd
            assert not view.closed


@QUICK
@given(views(), OFFERS, POLICIES)
def test_every_decision_has_a_reason(view, offers, policy):
    """Waiting is a decision too, and every action says why."""
    decision = decide(view, offers, policy, NOW)

    assert decision.reason
    assert all(action.reason for action in decision.actions)


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


class RandomWorld:
    """Turns decisions into what comes of them. Every GPU job ends, fruitful or not; money is spent at its end."""

    def __init__(self, draw, policy, num_items):
        self.draw = draw
        self.policy = policy
        self.now = NOW
        self.jobs = []
        self.items_left = self.num_items = num_items
        self.spent_usd = self.reserved_usd = 0.0
        self.num_started = self.idle_jobs = 0
        self.closed = ""

    def view(self):
        return CampaignView(
            num_items=self.num_items,
            items_left=self.items_left,
            quarantined_items=0,
            chunks_left=self.items_left,
            jobs=self.jobs,
            idle_jobs_in_a_row=self.idle_jobs,
            last_failure="preempted",
            reserved_usd=self.reserved_usd,
            spent_usd=self.spent_usd,
            closed=self.closed,
            closed_for_s=60.0,
        )

    def act(self, action):
        match action:
            case StartJob(offer=offer, num_workers=count):
                self.num_started += 1
                name = f"job-{self.num_started}"
                self.jobs.append(JobView(order=name, offer=offer, num_workers=count, workers_alive=0, is_starting=True))
                self.reserved_usd += self.cost_usd(self.jobs[-1])
            case StopJob(order=order):
                self.end(next(job for job in self.jobs if job.order == order), items_done=0)
            case CloseCampaign(reason=reason):
                self.closed = reason

    def cost_usd(self, job):
        return worst_case_usd(job.offer, job.num_workers, self.policy.job_hours)

    def end(self, job, items_done):
        self.jobs.remove(job)
        self.reserved_usd -= self.cost_usd(job)
        self.spent_usd += self.cost_usd(job) * self.draw(st.floats(0, 1))
        self.items_left -= items_done
        self.idle_jobs = 0 if items_done else self.idle_jobs + 1

    def go_on(self):
        """Every GPU job begins to run, loses GPU workers or ends; none lives for long."""
        self.now += timedelta(minutes=7)
        for job in list(self.jobs):
            if job.is_starting and self.draw(st.booleans()):
                self.replace(job, is_starting=False, workers_alive=job.num_workers)
            elif job.workers_alive > 1 and self.draw(st.booleans()):
                self.replace(job, workers_alive=job.workers_alive - 1)
            else:
                self.end(job, items_done=self.draw(st.integers(0, self.items_left)))

    def replace(self, job, **changes):
        self.jobs[self.jobs.index(job)] = replace(job, **changes)


@QUICK
@given(OFFERS, POLICIES, st.integers(1, 12), st.data())
def test_every_campaign_comes_to_an_end_within_its_means(offers, policy, num_items, data):
    """Whatever becomes of its GPU jobs, the loop ends closed, nothing runs, and no more than the budget was spent."""
    world = RandomWorld(data.draw, policy, num_items)

    for _ in range(300):
        for action in decide(world.view(), offers, policy, world.now).actions:
            world.act(action)
        if policy.budget_usd is not None:
            assert world.spent_usd + world.reserved_usd <= policy.budget_usd + 1e-6
        assert wanted_workers(world.jobs) <= policy.max_workers
        if world.closed and not world.jobs:
            break
        world.go_on()

    assert world.closed
    assert world.jobs == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"items_left": 0, "chunks_left": 0}, "every item is settled"),
        ({"idle_jobs_in_a_row": 3}, "3 GPU jobs in a row got nothing done; the last: preempted"),
        ({"exhausted_chunk": "0-1"}, "chunk 0-1 has had 50 attempts"),
        ({"quarantined_items": 51}, "51% of all items are quarantined, 50% are allowed"),
        ({"spent_usd": 9.9}, "exceed the $0.10 left of the budget"),
    ],
)
def test_why_a_campaign_is_closed(changes, reason):
    """Each way to an end says which it is."""
    view = CampaignView(num_items=100, items_left=40, quarantined_items=0, chunks_left=4, last_failure="preempted")
    policy = a_policy(budget_usd=10.0, job_hours=1.0)

    (action,) = decide(replace(view, **changes), [an_offer(usd_per_hour=1.0)], policy, NOW).actions

    assert isinstance(action, CloseCampaign)
    assert reason in action.reason


@QUICK
@given(views(), OFFERS, POLICIES, st.booleans())
def test_a_platform_that_refuses_is_not_asked_again(view, offers, policy, has_another):
    """Others are used; without any the campaign is closed as soon as nothing runs."""
    others = [an_offer(platform="other", usd_per_hour=9.0)] if has_another else []
    view = replace(view, refusals={"fake": "no such project"})
    asked = [replace(offer, platform="fake") for offer in offers]

    actions = decide(view, asked + others, policy, NOW).actions

    assert all(action.offer in others for action in actions if isinstance(action, StartJob))
    if not others and view.items_left and not view.jobs and not view.closed:
        (close,) = actions
        assert isinstance(close, CloseCampaign)
