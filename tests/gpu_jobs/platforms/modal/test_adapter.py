"""GPU jobs on Modal, at its emulator: what faults turn into, and that nothing is left that costs money."""

import asyncio
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from modal.exception import (
    ExecutionError,
    FunctionTimeoutError,
    InternalFailure,
    NotFoundError,
    OutputExpiredError,
    PermissionDeniedError,
    RemoteError,
    ResourceExhaustedError,
    ServiceError,
)

from gpu_jobs.emulators.modal import Fault
from gpu_jobs.errors import (
    BalanceError,
    OutcomeUnknownError,
    PlatformError,
    QuotaError,
    RefusedError,
    RejectedError,
)
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.orders import Handle, Phase
from gpu_jobs.ledger import keys
from gpu_jobs.ledger.journal import Ended
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.platforms.base import start_once
from gpu_jobs.platforms.modal import deploy
from gpu_jobs.platforms.modal.adapter import ModalPlatform
from gpu_jobs.platforms.modal.api import translate
from gpu_jobs.platforms.modal.calls import CallEnd, end_of_error, end_of_value, observation
from gpu_jobs.platforms.modal.offers import options
from gpu_jobs.platforms.modal.settings import ModalSettings
from gpu_jobs.testing import an_offer, an_order
from tests.contracts.modal_bench import calls_of, running, settings_for, until, workers

HOSTILE = "no image found: quota of model credits exceeded, timed out, evicted"
MORE_TRIES = 10
"""Than any client makes for one call."""


@contextmanager
def every_try_fails(cloud, method, **fault):
    cloud.script.faults += [Fault(method=method, **fault)] * MORE_TRIES
    try:
        yield
    finally:
        cloud.script.faults.clear()


async def test_a_rate_limit_at_the_second_gpu_worker_leaves_none(bench, cloud):
    """No capacity means that nothing was started: the first is cancelled and struck off."""
    order = bench.order(num_workers=2)
    cloud.script.faults += [
        Fault(method="FunctionMap", status="", latency_s=0.0),
        Fault(method="FunctionMap", status="RESOURCE_EXHAUSTED", message="rate limit"),
    ]

    with pytest.raises(QuotaError, match="rate limit"):
        await bench.platform.start(order)

    cloud.wait(lambda: not cloud.unfinished())
    assert workers(order.name) == []
    assert await bench.platform.find(order.name) is None


async def test_a_gpu_worker_whose_reply_was_lost_is_found_when_it_starts(bench, cloud):
    """Every try is answered by UNAVAILABLE, though the first was done; there is one call, and it can be stopped."""
    order = bench.order()
    before = len(cloud.records.calls)

    with every_try_fails(cloud, "FunctionMap", reply_is_lost=True), pytest.raises(OutcomeUnknownError):
        await bench.platform.start(order)
    cloud.wait(lambda: workers(order.name))
    handle = await bench.platform.find(order.name)

    assert len(cloud.records.calls) == before + 1
    await until(bench, handle, lambda seen: seen.workers_alive == 1)
    await bench.platform.stop(handle)
    cloud.wait(lambda: not cloud.unfinished())


async def test_a_gpu_worker_that_was_never_spawned_is_never_found(bench, cloud):
    """The service is down: the outcome is unknown, and nothing appears."""
    order = bench.order()

    with every_try_fails(cloud, "FunctionMap"), pytest.raises(OutcomeUnknownError):
        await start_once(bench.platform, order)

    assert await bench.platform.find(order.name) is None
    assert cloud.unfinished() == []


async def test_a_second_gpu_worker_for_one_slot_leaves_before_it_works(bench, cloud):
    """Two orchestrators spawned the same; the ledger's `bound` lets one of them work."""
    order = bench.order()
    handle = await bench.platform.start(order)
    await until(bench, handle, lambda _: bench.is_working(handle))
    (first,) = await calls_of(bench, handle)

    second = await bench.platform._function(order)
    call = await second.spawn.aio(order.campaign_uri, f"{order.name}.0")
    end = end_of_value(await call.get.aio(timeout=60))

    assert (end.phase, end.reason) == (Phase.FAILED, "exit code 3")
    assert f"belongs to {first}" in end.detail
    assert bench.store.get(keys.bound(order.name, 0)) == first.encode()
    assert await calls_of(bench, handle) == [first]


async def test_a_gpu_worker_whose_order_has_ended_leaves_before_it_works(bench, cloud):
    """It was queued for too long, and its order was given up."""
    order = bench.order()
    ended = Ended(order=order.name, reason="lost", items_done=0, spent_usd=0.0, at=bench.at)
    bench.journal.append(ended, upon=bench.journal.read())

    handle = await bench.platform.start(order)
    cloud.wait(lambda: not cloud.unfinished())

    seen = (await bench.platform.observe([handle]))[handle]
    assert (seen.phase, seen.reason) == (Phase.FAILED, "exit code 3")


async def test_a_preempted_gpu_worker_goes_on_elsewhere(bench, cloud):
    """Same call, same handle, no failure; the slot stays its own."""
    handle = await running(bench)
    await until(bench, handle, lambda _: bench.is_working(handle))
    (call,) = await calls_of(bench, handle)
    first, process = cloud.container_of(call), workers(handle.order)[0]

    cloud.preempt(first)
    cloud.wait(lambda: cloud.container_of(call) not in (None, first))
    cloud.wait(lambda: [each for each in workers(handle.order) if each.pid != process.pid])

    assert (await bench.platform.observe([handle]))[handle].phase is Phase.RUNNING
    assert await calls_of(bench, handle) == [call]


async def test_containers_that_keep_dying_end_the_gpu_job(bench, cloud):
    """A reason of its own."""
    handle = await running(bench)
    (call,) = await calls_of(bench, handle)
    for _ in range(3):
        cloud.wait(lambda: cloud.container_of(call))
        container = cloud.container_of(call)
        cloud.kill(container)
        cloud.wait(lambda died=container: cloud.container_of(call) is not died)

    seen = (await bench.platform.observe([handle]))[handle]
    assert (seen.phase, seen.reason) == (Phase.FAILED, "its containers died again and again")


async def test_asked_again_a_stop_kills_the_container(bench, cloud, monkeypatch):
    """After the grace, whatever the GPU worker does; nothing idles on."""
    monkeypatch.setattr("gpu_jobs.platforms.modal.adapter.STOP_GRACE_S", 0.0)
    handle = await running(bench)
    (call,) = await calls_of(bench, handle)
    container = cloud.container_of(call)
    workers(handle.order)[0].suspend()

    await bench.platform.stop(handle)
    await bench.platform.stop(handle)

    cloud.wait(lambda: container not in cloud.containers())
    assert (await bench.platform.observe([handle]))[handle].phase is Phase.STOPPED
    assert workers(handle.order) == []


async def test_a_result_that_has_expired_is_gone(bench, cloud):
    """Modal forgets results after a week."""
    handle = await running(bench)
    (call,) = await calls_of(bench, handle)
    await bench.platform.stop(handle)
    cloud.wait(lambda: not cloud.unfinished())
    cloud.expire(call)

    seen = (await bench.platform.observe([handle]))[handle]

    assert (seen.phase, seen.reason) == (Phase.GONE, "its result has expired")


async def test_a_service_that_is_down_is_no_news(bench, cloud):
    """Neither an end nor a GPU job that is gone."""
    handle = await running(bench)

    with every_try_fails(cloud, "FunctionGetOutputs"), pytest.raises(OutcomeUnknownError):
        await bench.platform.observe([handle])

    assert (await bench.platform.observe([handle]))[handle].phase is Phase.RUNNING


async def test_a_second_gpu_job_within_the_idle_window_pays_no_cold_start(bench, cloud):
    """Also another order, for another time, on the same GPU; its GPU worker says that it is warm."""
    handle = await running(bench)
    (call,) = await calls_of(bench, handle)
    container = cloud.container_of(call)
    await bench.platform.stop(handle)
    cloud.wait(lambda: not cloud.unfinished())
    before = len(cloud.bill.lines)

    again = await running(bench)

    assert cloud.container_of(*await calls_of(bench, again)) is container
    assert len(cloud.bill.lines) == before
    cloud.wait(lambda: bench.is_working(again))
    assert {beat.is_warm for beat, _ in Ledger(bench.store).heartbeats() if beat.order == again.order} == {True}


async def test_a_wrong_token_is_rejected_with_what_to_do(modal_cloud, monkeypatch):
    """And so is none."""
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-wrong")
    with pytest.raises(RejectedError, match="modal token new"):
        await ModalPlatform(settings_for(modal_cloud)).find("ff-1")

    monkeypatch.delenv("MODAL_TOKEN_ID")
    with pytest.raises(RejectedError, match="token missing"):
        await ModalPlatform(settings_for(modal_cloud)).find("ff-1")


@pytest.mark.parametrize("url", ["", "https://api.modal.com", "http://127.0.0.1:9"])
async def test_an_emulator_that_modal_s_own_variable_does_not_name_is_refused(modal_cloud, monkeypatch, url):
    """Unset, it would lead to the real cloud."""
    if url:
        monkeypatch.setenv("MODAL_SERVER_URL", url)
    else:
        monkeypatch.delenv("MODAL_SERVER_URL")

    with pytest.raises(RefusedError, match="MODAL_SERVER_URL: must be http://127"):
        await ModalPlatform(settings_for(modal_cloud)).find("ff-1")
    with pytest.raises(RefusedError, match="MODAL_SERVER_URL: must be http://127"):
        await asyncio.to_thread(deploy.deploy, settings_for(modal_cloud))
    assert modal_cloud.calls == []


async def test_an_emulator_must_be_on_this_machine():
    """It is given no real token."""
    with pytest.raises(RefusedError, match="FANFOLD_MODAL_EMULATOR"):
        await ModalPlatform(ModalSettings(emulator="http://10.0.0.1:80")).find("ff-1")


@pytest.mark.parametrize(
    ("left", "hours"),
    [(timedelta(hours=12), 13), (timedelta(hours=11, minutes=59), 13), (timedelta(days=2), 24), (timedelta(0), 1)],
)
def test_a_call_s_timeout_is_in_whole_hours_past_the_order_s_expiry(left, hours):
    """Equal options share warm containers; the GPU worker ends before by itself."""
    now = datetime(2026, 11, 24, tzinfo=UTC)
    order = an_order(expires_at=now + left, offer=an_offer(gpu="L4", num_gpus=1))

    assert options(order, ModalSettings(), now)["timeout"] == hours * 3600


@pytest.mark.parametrize(
    ("error", "phase", "reason", "failure"),
    [
        (OutputExpiredError(), Phase.GONE, "its result has expired", None),
        (NotFoundError("no such call"), Phase.GONE, "not to be found on its platform", None),
        (FunctionTimeoutError("late"), Phase.FAILED, "timed out", Failure.TIMEOUT),
        (InternalFailure("again"), Phase.FAILED, "its containers died again and again", None),
        (RemoteError("cancelled"), Phase.STOPPED, "stopped", None),
        (ImportError("no torch"), Phase.FAILED, "the container's code failed: ImportError", Failure.IMAGE),
        (ValueError(HOSTILE), Phase.FAILED, "the container's code failed: ValueError", Failure.USER_CODE),
    ],
)
def test_each_way_a_call_ends_has_a_reason_of_its_own(error, phase, reason, failure):
    """One table, so that no two of them are mixed up."""
    end = end_of_error(error)

    assert (end.phase, end.reason, end.failure) == (phase, reason, failure)


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (ResourceExhaustedError("rate limit"), QuotaError),
        (ResourceExhaustedError("workspace billing cycle spend limit reached"), BalanceError),
        (PermissionDeniedError("image-quota-credits: not yours"), RejectedError),
        (ServiceError("UNAVAILABLE: quota"), OutcomeUnknownError),
        (ExecutionError("no image, no quota, no credit"), RejectedError),
    ],
)
def test_each_refusal_has_a_class_of_its_own(error, ours):
    """By Modal's class; only for a spend limit it has none."""
    with pytest.raises(PlatformError) as raised, translate("spawn"):
        raise error

    assert type(raised.value) is ours


@pytest.mark.parametrize(
    ("code", "failure"), [(1, Failure.USER_CODE), (-9, Failure.OUT_OF_MEMORY), (-15, Failure.UNKNOWN), (0, None)]
)
def test_a_gpu_worker_is_told_by_its_exit_code_not_by_its_log(code, failure):
    """The log holds whatever its user's code has printed."""
    end = end_of_value({"exit_code": code, "log": HOSTILE})

    assert observation([end], num_started=1).failure is failure


def test_a_gpu_job_is_what_its_calls_are():
    """Alive while one is; the worst of its ends, with all reasons."""
    done = CallEnd(phase=Phase.SUCCEEDED, detail="bye")
    killed = CallEnd(phase=Phase.FAILED, reason="killed by SIGKILL")

    assert observation([None, None], num_started=0).phase is Phase.STARTING
    assert observation([None, done], num_started=1).workers_alive == 1
    assert observation([done, done], num_started=2).phase is Phase.SUCCEEDED
    seen = observation([killed, done, killed], num_started=3)
    assert (seen.phase, seen.reason, seen.detail) == (Phase.FAILED, "killed by SIGKILL (2x)", "bye")
    assert observation([], num_started=0).phase is Phase.GONE


async def test_an_unknown_handle_costs_no_poll(bench, cloud):
    """The register alone tells."""
    cloud.calls.clear()
    handle = Handle(platform="modal", order="never", id="never")

    assert (await bench.platform.observe([handle]))[handle].phase is Phase.GONE
    assert "FunctionGetOutputs" not in cloud.calls


async def test_finished_gpu_jobs_are_struck_off_the_register_after_an_hour(bench, cloud, monkeypatch):
    """By the reaper's listing; until then any orchestrator can see how they ended."""
    handle = await running(bench)
    await bench.platform.stop(handle)
    cloud.wait(lambda: not cloud.unfinished())
    assert list(await bench.platform.list_owned(handle.order)) == []
    assert await bench.platform.find(handle.order) == handle

    monkeypatch.setattr("gpu_jobs.platforms.modal.adapter._KEEP_S", 0.0)
    assert list(await bench.platform.list_owned(handle.order)) == []

    assert await bench.platform.find(handle.order) is None
