"""What the Cloud Run adapter keeps beyond the contract of all platforms: a Job resource runs once and is deleted."""

import asyncio
import time
from contextlib import closing
from dataclasses import replace

import pytest

from gpu_jobs.emulators.cloud_run import Fault
from gpu_jobs.errors import OutcomeUnknownError, RejectedError
from gpu_jobs.jobs.orders import Phase
from gpu_jobs.platforms.base import start_once
from gpu_jobs.platforms.cloud_run import adapter
from gpu_jobs.platforms.cloud_run.adapter import CloudRunPlatform
from tests.contracts.cloud_run_bench import CloudRunBench, cloud_run_settings

_PATIENCE_S = 60.0


@pytest.fixture
def bench(request):
    with closing(CloudRunBench(request.getfixturevalue)) as bench:
        yield bench


@pytest.fixture
def world(bench):
    return bench.emulator.world


def another_adapter(bench, deadline_s=10.0):
    """As a new orchestrator has it: it remembers nothing."""
    return CloudRunPlatform(cloud_run_settings(bench.emulator.grpc_address), deadline_s=deadline_s)


async def wait_out_the_deadline(platform, handle):
    """As if the first look had been a minute ago."""
    await platform.observe([handle])
    platform._not_run_since[handle.id] -= 60.0


async def until_over(platform, handle):
    give_up_at = time.monotonic() + _PATIENCE_S
    while not (seen := (await platform.observe([handle]))[handle]).phase.is_over:
        assert time.monotonic() < give_up_at, seen
        await asyncio.sleep(0.05)
    return seen


async def until_completed(world, *handles):
    """By the service's own books, which the adapter has not seen."""
    give_up_at = time.monotonic() + _PATIENCE_S
    while not all(world.jobs[each.id].latest_created_execution.completion_time for each in handles):
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.05)


def never_begins(order):
    """Its GPU workers exit at once: there is no such order in the journal."""
    return replace(order, name=f"{order.name}-x")


async def test_a_finished_job_resource_is_deleted_and_its_end_remembered(bench, world):
    """A project may hold a thousand; the service forgets with it how it ended."""
    handle = await bench.platform.start(never_begins(bench.order()))

    seen = await until_over(bench.platform, handle)

    assert (seen.phase, seen.reason) == (Phase.FAILED, "exit code 3")
    assert world.jobs == {}
    assert (await bench.platform.observe([handle]))[handle] == seen


async def test_stopping_what_has_ended_unseen_is_silent(bench, world):
    """The service refuses to cancel it; how it ended is still to be seen."""
    handle = await bench.platform.start(never_begins(bench.order()))
    await until_completed(world, handle)

    await bench.platform.stop(handle)

    assert (await bench.platform.observe([handle]))[handle].phase is Phase.FAILED


async def test_a_job_resource_deleted_by_hand_is_gone(bench, world):
    """Which ends its GPU workers too."""
    handle = await bench.platform.start(bench.order())
    await bench.platform._delete(handle.id)

    seen = await until_over(another_adapter(bench), handle)

    assert seen.phase is Phase.GONE


async def test_a_lost_run_is_not_repeated_and_its_job_resource_cannot_run_late(bench, world):
    """It waits for longer than the call's deadline; then it is deleted, and its order ends."""
    platform = bench.platform
    world.script.faults.append(Fault(method="RunJob", status=503))

    handle = await start_once(platform, bench.order())
    first = (await platform.observe([handle]))[handle]
    await wait_out_the_deadline(platform, handle)
    seen = (await platform.observe([handle]))[handle]

    assert first.phase is Phase.STARTING
    assert (seen.phase, seen.reason) == (Phase.GONE, "created, but never run: the request was lost")
    assert (world.jobs, world.num_started) == ({}, 0)
    assert bench.emulator.calls.count("RunJob") == 1


async def test_an_execution_that_its_job_resource_does_not_name_yet_is_found_in_the_listing(bench, world):
    """So that what was run is never taken for never run: it is cancelled, not only deleted."""
    handle = await bench.platform.start(bench.order())
    world.jobs[handle.id].latest_created_execution.name = ""

    await another_adapter(bench).stop(handle)

    assert bench.emulator.calls[-1] == "CancelExecution"


async def test_a_job_resource_whose_deletion_is_not_confirmed_is_no_news(bench, world):
    """Else it could run after its order has ended."""
    platform = bench.platform
    world.script.faults += [Fault(method="RunJob", status=503), Fault(method="DeleteJob", status=503)]
    handle = await start_once(platform, bench.order())
    await wait_out_the_deadline(platform, handle)

    with pytest.raises(OutcomeUnknownError):
        await platform.observe([handle])

    assert (await platform.observe([handle]))[handle].phase is Phase.GONE
    assert world.jobs == {}


@pytest.mark.parametrize("method", ["CreateJob", "RunJob"])
async def test_a_refused_start_leaves_no_job_resource(bench, world, method):
    """Whichever of its two calls was refused."""
    world.script.faults.append(Fault(method=method, status=400, message="bad request"))

    with pytest.raises(RejectedError, match="bad request"):
        await bench.platform.start(bench.order())

    assert (world.jobs, world.num_started) == ({}, 0)


async def test_every_call_has_a_deadline(bench, world):
    """A service that keeps silent is no answer."""
    world.script.faults.append(Fault(method="GetJob", latency_s=60.0))

    with pytest.raises(OutcomeUnknownError, match="Deadline Exceeded"):
        await another_adapter(bench, deadline_s=0.3).find("ff-any")


async def test_the_reapers_listing_deletes_what_has_long_finished_under_its_root(bench, world, monkeypatch):
    """Page by page; of other roots nothing is touched, and what lives or never ran is listed."""
    monkeypatch.setattr(adapter, "_PAGE", 1)
    ended = [await bench.platform.start(never_begins(bench.order())) for _ in range(2)]
    other = await bench.platform.start(replace(bench.order(), name="else-1"))
    await until_completed(world, *ended, other)
    alive = await bench.platform.start(bench.order())

    assert await bench.platform.list_owned("ff-") == [alive]
    assert set(world.jobs) == {each.id for each in (*ended, other, alive)}
    monkeypatch.setattr(adapter, "_KEEP_S", -60.0)
    assert await bench.platform.list_owned("ff-") == [alive]

    assert set(world.jobs) == {other.id, alive.id}
