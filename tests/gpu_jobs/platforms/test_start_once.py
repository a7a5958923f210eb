"""Starting so that a lost reply never starts a GPU job twice, and what the fake platform makes of it."""

import pytest

from gpu_jobs.errors import NoCapacityError, OutcomeUnknownError
from gpu_jobs.platforms.base import start_once
from gpu_jobs.testing import FakePlatform, an_order


async def test_lost_reply_starts_no_second_gpu_job():
    """The GPU job started but the reply was lost: we find it and keep it."""
    platform = FakePlatform("reply_lost")

    handle = await start_once(platform, an_order())

    assert [job.handle for job in platform.jobs] == [handle]
    assert platform.num_starts == 1


@pytest.mark.parametrize(("fault", "error"), [("request_lost", OutcomeUnknownError), ("no_capacity", NoCapacityError)])
async def test_nothing_started_is_the_callers_call(fault, error):
    """Nothing is running: `start_once` says so and leaves the next step to the caller."""
    platform = FakePlatform(fault)

    with pytest.raises(error):
        await start_once(platform, an_order())

    assert platform.jobs == []


async def test_within_the_find_lag_the_outcome_stays_unknown():
    """A listing that lags proves nothing, so nothing is started again."""
    platform = FakePlatform("reply_lost", find_lag_s=10)

    with pytest.raises(OutcomeUnknownError):
        await start_once(platform, an_order())

    assert len(platform.jobs) == 1


async def test_the_fake_bills_each_gpu_worker_by_the_second():
    """From its start to its own end, at the offer's price."""
    clock_s = [0.0]
    platform = FakePlatform(clock=lambda: clock_s[0])
    handle = await platform.start(an_order(num_workers=2))
    clock_s[0] = 10.2
    platform.kill_workers(handle.order)
    clock_s[0] = 60.0
    await platform.stop(handle)
    clock_s[0] = 1000.0

    assert platform.billed_usd == pytest.approx((11 + 60) * 0.36 / 3600)
