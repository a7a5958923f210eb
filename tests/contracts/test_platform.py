"""What every platform keeps, whatever is behind it. A new one brings a bench: docs/adding-a-platform.md."""

import asyncio
import contextlib
import importlib
import os
import signal
import time

import pytest

from gpu_jobs.errors import NoCapacityError, OutcomeUnknownError
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.orders import Handle, Phase
from gpu_jobs.platforms import local
from gpu_jobs.platforms.base import start_once
from gpu_jobs.platforms.table import BUILT_IN
from gpu_jobs.testing import FakePlatform, an_order
from tests.contracts.local_bench import LocalBench

_PATIENCE_S = 60.0


class FakeBench:
    """The fake, its GPU jobs moved on as a cloud moves them."""

    unknown_id = "never-seen"

    def __init__(self, _ask):
        self.platform = FakePlatform()
        self.num_orders = 0

    def order(self, num_workers=1, name=None):
        self.num_orders += 1
        return an_order(name=name or f"ff-test-{self.num_orders}", num_workers=num_workers)

    def kill_worker(self, handle):
        self.platform.kill_workers(handle.order)

    def tick(self):
        for job in self.platform.jobs:
            if job.phase is Phase.STARTING:
                self.platform.run(job.order.name)

    def is_working(self, handle):
        return self.platform.job(handle.order).phase is Phase.RUNNING

    def close(self):
        pass


def all_benches():
    """The fake's, and those of every platform that Fanfold comes with: `NAME_bench.py` lists them in `BENCHES`."""
    benches = {"fake": FakeBench}
    for row in BUILT_IN:
        benches |= importlib.import_module(f"tests.contracts.{row.name}_bench").BENCHES
    return benches


@pytest.fixture(
    params=[
        pytest.param(bench, id=name, marks=[pytest.mark.slow] if getattr(bench, "is_slow", False) else [])
        for name, bench in all_benches().items()
    ]
)
def bench(request):
    bench = request.param(request.getfixturevalue)
    yield bench
    bench.close()


class RepliesLost:
    """A platform whose `start` works and never says so, which takes a while to notice."""

    def __init__(self, platform):
        self.find = platform.find
        self._platform = platform

    async def start(self, order):
        await self._platform.start(order)
        await asyncio.sleep(min(1.0, self._platform.find_lag_s))
        raise OutcomeUnknownError("the reply was lost")


async def look(bench, handle):
    bench.tick()
    seen = await bench.platform.observe([handle])
    assert list(seen) == [handle]
    return seen[handle]


async def until(bench, handle, holds):
    """The first observation that holds."""
    give_up_at = time.monotonic() + _PATIENCE_S
    while not holds(observation := await look(bench, handle)):
        assert time.monotonic() < give_up_at, observation
        await asyncio.sleep(0.05)
    return observation


async def soon(bench, ask, expected):
    """What `ask` finds is what is expected, at the latest when the platform's listings must show it."""
    give_up_at = time.monotonic() + bench.platform.find_lag_s
    while (found := await ask()) != expected:
        assert time.monotonic() < give_up_at, found
        await asyncio.sleep(0.02)


async def start_running(bench, num_workers=1, name=None):
    handle = await bench.platform.start(bench.order(num_workers, name))
    await until(bench, handle, lambda seen: seen.workers_alive == num_workers)
    return handle


async def test_start_returns_a_handle_that_observe_knows(bench):
    """Named after the order, on this platform, and soon running."""
    order = bench.order()
    handle = await bench.platform.start(order)

    assert (handle.platform, handle.order) == (bench.platform.name, order.name)
    assert not (await look(bench, handle)).phase.is_over
    observation = await until(bench, handle, lambda seen: seen.phase is Phase.RUNNING)
    assert observation.workers_alive == 1


async def test_all_gpu_workers_of_an_order_are_started(bench):
    """As many as were ordered."""
    handle = await start_running(bench, num_workers=3)

    assert (await look(bench, handle)).workers_alive == 3


async def test_find_by_name_finds_the_same(bench):
    """By the whole name only."""
    handle = await start_running(bench, num_workers=2)

    await soon(bench, lambda: bench.platform.find(handle.order), handle)
    assert await bench.platform.find(handle.order[:-1]) is None
    assert await bench.platform.find(f"{handle.order}0") is None


async def test_an_unknown_handle_is_gone(bench):
    """A GPU job that the platform has forgotten, or never knew, beside one that it knows."""
    known = await start_running(bench)
    unknown = Handle(platform=bench.platform.name, order="never", id=bench.unknown_id)

    seen = await bench.platform.observe([unknown, known])

    assert seen[unknown].phase is Phase.GONE
    assert seen[unknown].workers_alive == 0
    assert seen[known].phase is Phase.RUNNING
    assert dict(await bench.platform.observe([])) == {}


async def test_stop_ends_it_and_may_be_asked_again(bench):
    """In the middle of its work, while it stops, and after."""
    handle = await start_running(bench)
    await until(bench, handle, lambda _: bench.is_working(handle))

    await bench.platform.stop(handle)
    await bench.platform.stop(handle)
    observation = await until(bench, handle, lambda seen: seen.phase.is_over)
    await bench.platform.stop(handle)

    assert observation.workers_alive == 0
    assert (await look(bench, handle)).phase is observation.phase


async def test_stopping_what_never_was_is_silent(bench):
    """A handle from a journal whose GPU job is long gone."""
    await bench.platform.stop(Handle(platform=bench.platform.name, order="never", id=bench.unknown_id))


async def test_stop_touches_no_other(bench):
    """One GPU job ends, the other goes on."""
    stopped, other = await start_running(bench), await start_running(bench)

    await bench.platform.stop(stopped)
    await until(bench, stopped, lambda seen: seen.phase.is_over)

    assert (await look(bench, other)).workers_alive == 1


async def test_list_owned_lists_what_runs_by_prefix(bench):
    """Ours and nobody else's, whoever started it."""
    mark = f"ff-{os.urandom(4).hex()}"
    ours = [await start_running(bench, name=f"{mark}-{number}") for number in range(2)]
    other = await start_running(bench, name=f"x{mark}-0")

    async def listed(prefix):
        return sorted(await bench.platform.list_owned(prefix), key=lambda handle: handle.order)

    await soon(bench, lambda: listed(mark), ours)
    await soon(bench, lambda: listed(f"x{mark}"), [other])
    assert await listed(f"{mark}-9") == []


async def test_a_lost_reply_never_starts_it_twice(bench):
    """`start_once` finds by name what was started; asking by name again finds the same."""
    order = bench.order(num_workers=2)

    handle = await start_once(RepliesLost(bench.platform), order)
    await until(bench, handle, lambda seen: seen.workers_alive == 2)

    assert await bench.platform.find(order.name) == handle
    assert list(await bench.platform.list_owned(order.name)) == [handle]


async def test_a_killed_gpu_worker_is_seen(bench):
    """First as one fewer, then as a failed GPU job with a reason; no user's code is to blame."""
    handle = await start_running(bench, num_workers=2)

    bench.kill_worker(handle)
    await until(bench, handle, lambda seen: seen.phase is Phase.RUNNING and seen.workers_alive == 1)
    bench.kill_worker(handle)
    observation = await until(bench, handle, lambda seen: seen.phase.is_over)

    assert observation.phase is Phase.FAILED
    assert "killed" in observation.reason
    assert observation.failure in (None, Failure.PREEMPTED, Failure.OUT_OF_MEMORY, Failure.LOST)


async def test_offers_are_of_this_platform(bench):
    """At least one, priced and dated."""
    offers = bench.platform.offers()

    assert {offer.platform for offer in offers} == {bench.platform.name}
    assert all(offer.usd_per_hour >= 0 and offer.max_workers >= 1 and offer.priced_on for offer in offers)


async def test_a_local_start_that_fails_half_way_leaves_nothing(request):
    """No capacity means that nothing was started, also if the first of two GPU workers was."""
    with contextlib.closing(LocalBench(request.getfixturevalue)) as bench:
        order = bench.order(num_workers=2)
        bench.platform.log_path(order.name, 1).mkdir(parents=True)

        with pytest.raises(NoCapacityError):
            await bench.platform.start(order)
        (child,) = (child for identity, child in local._children.items() if identity not in bench.before)

        assert child.wait(timeout=20) == -signal.SIGKILL
        assert await bench.platform.find(order.name) is None
