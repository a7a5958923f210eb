"""What the comparison takes from campaigns: cold and warm starts apart, all GPU workers together, availability."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.forecast.benchmark import availability_of, from_campaign, measured_warm_starts
from gpu_jobs.forecast.comparison import Volume
from gpu_jobs.jobs.costs import WorkerSeconds
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.orders import JobOutcome
from gpu_jobs.ledger.journal import Ended, Journal, Opened, Ordered
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.ledger.records import Heartbeat
from gpu_jobs.store.local import LocalStore
from gpu_jobs.telemetry.latencies import step_of
from gpu_jobs.telemetry.measure import samples_from
from gpu_jobs.telemetry.workers import GpuWorkers
from gpu_jobs.testing import a_policy, an_offer, an_order, plan_campaign

VOLUME = Volume(items=10_000, campaigns=10, max_workers=2)
OFFER = an_offer(idle_s=60.0, cold_start_p50_s=99.0)


class Past:
    """A campaign that is over, with the GPU jobs that a test gives it."""

    def __init__(self, folder, name):
        self.store = LocalStore(folder / name)
        self.plan = plan_campaign(self.store)
        self.journal = Journal(self.store)
        self._append(Opened(owner="me", policy=a_policy(), at=datetime.now(UTC)))
        self.campaign = Campaign(self.store, self.plan)

    def _append(self, entry):
        assert self.journal.append(entry, upon=self.journal.read())

    def job(
        self, *, offer=OFFER, ago_s=0.0, reason="succeeded", failure=None, outcome=JobOutcome.SUCCEEDED, items_done=0
    ):
        """Ordered so long ago, and over now."""
        at = datetime.now(UTC)
        order = an_order(name=f"job-{self.journal.read().next_seq}", offer=offer, num_workers=2)
        self._append(Ordered(order=order, owner="me", reason="", at=at - timedelta(seconds=ago_s)))
        self._append(
            Ended(
                order=order.name,
                reason=reason,
                failure=failure,
                outcome=outcome,
                items_done=items_done,
                spent_usd=0.1,
                at=at,
            )
        )
        return order.name

    def gpu_worker(self, order, *, start_s, working_s, items=0, slot=0, **told):
        """It ends just now, so that its first sign of life was `start_s + working_s` ago."""
        seconds = WorkerSeconds(starting=start_s, working=working_s)
        worker_id = f"{order}-{len(list(Ledger(self.store).heartbeats()))}"
        beat = Heartbeat(
            worker_id=worker_id,
            order=order,
            slot=slot,
            host="h",
            status="over",
            items_done=items,
            seconds=seconds,
            **told,
        )
        Ledger(self.store).beat(beat)


@pytest.fixture
def past(tmp_path):
    return lambda name="one": Past(tmp_path, name)


def test_a_warm_start_is_not_averaged_into_the_cold_ones(past):
    """Nor forecast with; a campaign that has only warm starts says that no cold one was seen."""
    first, again = past("one"), past("two")
    job = first.job(ago_s=150)
    first.gpu_worker(job, start_s=40, working_s=100, items=100)
    first.gpu_worker(job, start_s=4, working_s=100, items=100, slot=1, is_warm=True)
    soon = again.job(ago_s=15)
    again.gpu_worker(soon, start_s=2, working_s=10, is_warm=True)

    alone = from_campaign(first.campaign, "fake", VOLUME, [OFFER])
    both = from_campaign(first.campaign, "fake", VOLUME, [OFFER], warm=again.campaign)
    (samples,) = samples_from(first.journal.read(), first.campaign.workers()).values()

    assert alone.cold_start_s == pytest.approx(50, abs=1)
    assert alone.warm_start_s == pytest.approx(50, abs=1)
    assert both.warm_start_s == pytest.approx((50 + 5) / 2, abs=1)
    assert measured_warm_starts(again.campaign, "fake")
    assert samples.evidence.starts == len(samples.starts_s) == 1


def test_without_a_cold_start_the_month_is_reckoned_with_the_offer_s(past):
    """None was seen."""
    world, offer = past(), replace(OFFER, idle_s=0.0)
    world.gpu_worker(world.job(offer=offer, ago_s=20), start_s=2, working_s=10, items=10, is_warm=True)

    found = from_campaign(world.campaign, "fake", VOLUME, [OFFER])

    assert found.cold_start_s is None
    assert found.usd_per_month_with_starts > found.usd_per_month + 10 * 99 * offer.usd_per_hour / 3600


def test_a_restarted_gpu_worker_s_start_counts_from_the_end_of_its_life_before(past):
    """Not from the order, an hour ago."""
    world = past()
    job = world.job(ago_s=3600)
    ledger = world.campaign.ledger
    world.gpu_worker(job, start_s=5, working_s=20, items=20)
    (beat, at), *_ = ledger.heartbeats()

    workers = GpuWorkers([(beat, at), (replace(beat, worker_id="before"), at - 35)])
    starts = [workers.start_s(world.journal.read().orders[job], each) for each in workers.of(job)]

    assert starts == pytest.approx([15, 3600 - 35 - 20], abs=1)


def test_gpu_workers_together_and_how_long_they_took_to_be_so(past):
    """Two at work at once, the slower to start ends the ramp-up."""
    world = past()
    job = world.job(ago_s=100)
    world.gpu_worker(job, start_s=10, working_s=80, items=160, latencies={step_of(0.5): 19, step_of(9.0): 1})
    world.gpu_worker(job, start_s=10, working_s=50, items=50, slot=1, latencies={step_of(0.5): 19, step_of(9.0): 1})

    found = from_campaign(world.campaign, "fake", VOLUME, [OFFER])

    assert (found.ramp_up_workers, found.ramp_up_s) == (2, pytest.approx(50, abs=1))
    assert found.items_per_s == pytest.approx(1.5)
    assert found.all_items_per_s == pytest.approx(3.0)
    assert found.p95_s == pytest.approx(0.5, rel=0.13)


def test_a_campaign_without_items_has_no_figures(past):
    """Whatever it has paid."""
    world = past()
    world.job(reason="no capacity", failure=Failure.NO_CAPACITY)

    assert from_campaign(world.campaign, "fake", VOLUME, [OFFER]) is None


@pytest.mark.parametrize(
    ("job", "had"),
    [
        ({"items_done": 3}, True),
        ({}, True),
        ({"items_done": 3, "reason": "gone", "failure": Failure.LOST}, True),
        ({"reason": "traceback", "failure": Failure.USER_CODE}, True),
        ({"reason": "is full", "failure": Failure.NO_CAPACITY}, False),
        ({"reason": "429", "failure": Failure.QUOTA}, False),
        ({"reason": "never started", "failure": Failure.TIMEOUT}, False),
        ({"reason": "enough", "outcome": JobOutcome.STOPPED}, None),
        ({"reason": "no such image", "failure": Failure.IMAGE}, None),
        ({"reason": "403", "failure": Failure.REJECTED}, None),
    ],
)
def test_availability_is_of_all_past_gpu_jobs_of_a_platform(past, job, had):
    """Of all campaigns under the store root; other platforms', and what says nothing about it, aside."""
    earlier, now = past("earlier"), past("now")
    earlier.job(items_done=1)
    earlier.job(offer=an_offer(platform="other"), reason="is full", failure=Failure.NO_CAPACITY)
    earlier.job(**job)

    expected = {True: (1.0, 2), False: (0.5, 2), None: (1.0, 1)}
    assert availability_of(now.campaign, "fake") == expected[had]
