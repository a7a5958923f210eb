"""GPU jobs as pods: what the adapter asks for, and what it makes of what goes wrong."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gpu_jobs.campaign.reaper import reap
from gpu_jobs.emulators.runpod import Fault
from gpu_jobs.errors import (
    BalanceError,
    NoCapacityError,
    OutcomeUnknownError,
    QuotaError,
    RefusedError,
    RejectedError,
)
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.orders import Phase
from gpu_jobs.platforms.base import start_once
from gpu_jobs.platforms.runpod import pods as adapter_pods
from gpu_jobs.platforms.runpod.adapter import RunPodPlatform
from gpu_jobs.platforms.runpod.api import open_account
from tests.contracts.runpod_bench import pods, runpod_settings, script, seen, until


async def test_four_gpu_workers_are_one_pod_with_four_gpus(open_platform, order, runpod):
    """Everything that a pod needs in one request: exec form, secrets by reference, volume, deadline in its name."""
    platform = open_platform(
        secrets={"SERVICE_ACCOUNT_JSON": "bucket_key"},
        env={"HF_HOME": "/runpod-volume/hf"},
        volume="vol1",
        data_centers=("US-KS-2",),
        registry="reg1",
    )
    runpod.world.volumes["vol1"] = "US-KS-2"

    await platform.start(order)

    (pod,) = pods(runpod)
    assert pod.body.name == f"{order.name}-w0-3-t1795564800"
    assert (pod.body.gpu.id, pod.body.gpu.count, pod.data_center) == ("NVIDIA L4", 4, "US-KS-2")
    assert pod.body.env == {
        "HF_HOME": "/runpod-volume/hf",
        "SERVICE_ACCOUNT_JSON": "{{ RUNPOD_SECRET_bucket_key }}",
    }
    assert pod.body.cmd == [
        "python", "-m", "gpu_jobs.platforms.runpod.pod_worker", "--api", runpod.url, order.campaign_uri,
        "--order", order.name, "--slots", "0-3", "--gpus", "1", "--deadline", "1795564800",
    ]  # fmt: skip
    assert [(mount.volume_id, mount.path) for mount in pod.body.mounts.network] == [("vol1", "/runpod-volume")]
    assert pod.body.registry == "reg1"
    assert pod.body.gpu.min_cuda_version == "12.6", "a host with an older driver never starts the image, and bills"


async def test_a_blackwell_gpu_gets_its_image_and_a_host_that_starts_it(open_platform, order, runpod):
    """The driver of the host must know CUDA 13 then; `min_cuda` of an image of one's own comes first."""
    runpod.world.images |= {"fanfold:cu130": runpod.world.images["fanfold"]}
    offer = replace(order.offer, cuda="13.0")
    for name, settings in (("ff-1-2-0001", {}), ("ff-1-2-0002", {"min_cuda": "13.1"})):
        platform = open_platform(image="fanfold:{cuda}", **settings)
        await platform.start(replace(order, name=name, offer=offer))

    asked = [(pod.body.image, pod.body.gpu.min_cuda_version) for pod in pods(runpod)]
    assert asked == [("fanfold:cu130", "13.0"), ("fanfold:cu130", "13.1")]


async def test_gpu_workers_with_several_gpus_fill_pods_of_eight(platform, order, runpod):
    """Three GPU workers of four GPUs: two in a pod of eight, one in a pod of four."""
    handle = await platform.start(replace(order, num_workers=3, offer=replace(order.offer, num_gpus=4)))

    assert [(pod.body.gpu.count, pod.body.cmd[-5]) for pod in pods(runpod)] == [(8, "0-1"), (4, "2-2")]
    assert (await until(platform, handle, lambda now: now.phase is Phase.RUNNING)).workers_alive == 3


async def test_if_the_second_pod_cannot_start_the_first_is_ended(open_platform, order, runpod):
    """No capacity means that nothing was started."""
    platform = open_platform(gpus_per_pod=2)
    runpod.world.stock["NVIDIA L4", "EU-RO-1"] = 3

    with pytest.raises(NoCapacityError, match="no longer any instances"):
        await platform.start(order)

    assert pods(runpod) == []


@pytest.mark.parametrize(
    "answer",
    [
        (Fault(status=400, detail="There are no longer any instances available"), NoCapacityError, "no longer any"),
        (Fault(status=401), RejectedError, "API key"),
        (Fault(status=400, detail="no image there/quota-of/credit"), NoCapacityError, "no image"),
        (Fault(status=400, detail="must not exceed your workers quota (5)"), QuotaError, "workers quota"),
        (Fault(status=400, detail="Your balance is too low"), BalanceError, "the balance is used up; add credit"),
        (Fault(status=403, detail="load balance could not be computed"), RejectedError, "load balance"),
        (Fault(status=403, detail="Not enough credits."), BalanceError, "the balance is used up; add credit"),
        (Fault(status=402, detail="too low"), BalanceError, "the balance is used up; add credit"),
        (Fault(status=403, detail="not for you"), RejectedError, "not for you"),
        (Fault(status=422, detail="name: too long"), RejectedError, "name: too long"),
        (Fault(status=429), QuotaError, "429"),
        (Fault(status=502, html="<html>Bad Gateway</html>"), OutcomeUnknownError, "502: <html>Bad Gateway"),
        (Fault(status=200, html="<html>Maintenance</html>"), OutcomeUnknownError, "no JSON"),
        (Fault(request_is_lost=True), OutcomeUnknownError, "does not answer POST"),
        (Fault(reply_is_lost=True), OutcomeUnknownError, "does not answer POST"),
    ],
    ids=lambda answer: f"{answer[0].status} {answer[1].__name__}",
)
async def test_what_runpod_answers_becomes_what_to_do_next(platform, order, runpod, answer):
    """Each status has one meaning, whatever the body is."""
    fault, error, told = answer
    script(runpod, replace(fault, method="POST"))

    with pytest.raises(error, match=told) as raised:
        await platform.start(order)
    assert type(raised.value) is error


async def test_a_lost_reply_is_found_by_name_once_the_list_shows_it(platform, order, runpod):
    """No second pod; until the list shows it, nothing is known."""
    runpod.world.list_lag_s = 0.5
    script(runpod, Fault(method="POST", reply_is_lost=True))

    with pytest.raises(OutcomeUnknownError):
        await start_once(platform, order)
    give_up_at = time.monotonic() + platform.find_lag_s
    while (handle := await platform.find(order.name)) is None:
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.05)

    assert (await until(platform, handle, lambda now: now.workers_alive)).workers_alive == 4
    assert len(pods(runpod)) == 1


async def test_of_a_request_that_was_carried_out_twice_one_pod_is_kept(platform, order, runpod):
    """The older; the other is ended at first sight."""
    script(runpod, Fault(method="POST", is_doubled=True))

    handle = await platform.start(order)
    first, second = runpod.world.pods.values()

    assert (await until(platform, handle, lambda now: now.phase is Phase.RUNNING)).workers_alive == 4
    assert (first.status, second.status) == ("RUNNING", "TERMINATED")


async def test_a_pod_that_no_list_shows_yet_is_starting_and_can_be_stopped(platform, order, runpod):
    """By the id that its creation was answered with."""
    runpod.world.list_lag_s = 1000.0

    handle = await platform.start(order)
    assert (await seen(platform, handle)).phase is Phase.STARTING
    await platform.stop(handle)

    assert (await seen(platform, handle)).phase is Phase.STOPPED
    assert pods(runpod) == []


async def test_all_pages_of_the_list_are_read(open_platform, order, runpod):
    """GPU jobs on the last page are seen too."""
    runpod.world.page_size = 2
    platform = open_platform(gpus_per_pod=1)

    handle = await platform.start(replace(order, num_workers=5))

    await until(platform, handle, lambda now: now.workers_alive == 5)
    assert await platform.list_owned("ff-") == [handle]


async def test_one_listing_serves_all_who_ask(open_platform, order, runpod):
    """Of one account, in one process, within the age that they bear: whatever the number of GPU jobs and campaigns."""
    one, other = (RunPodPlatform(runpod_settings(runpod), deadline_s=5.0, poll_s=1000.0) for _ in range(2))
    handles = [await one.start(replace(order, name=f"ff-many-{number}")) for number in range(3)]
    runpod.calls.clear()

    for _ in range(5):
        await one.observe(handles)
        await other.observe(handles)

    assert runpod.calls == ["GET /v2/pods"]


async def test_after_a_429_nobody_asks_until_its_time_is_over(platform, order, runpod):
    """`Retry-After` is obeyed, by all who share the account."""
    script(runpod, Fault(path="/v2/pods", status=429, retry_after="2"))
    with pytest.raises(NoCapacityError, match="429"):
        await platform.find(order.name)
    runpod.calls.clear()

    with pytest.raises(NoCapacityError, match="no more calls for"):
        await platform.find(order.name)
    assert runpod.calls == []
    give_up_at = time.monotonic() + 30
    while True:
        try:
            assert await platform.find(order.name) is None
            break
        except NoCapacityError:
            assert time.monotonic() < give_up_at
            await asyncio.sleep(0.1)


async def test_the_emulated_quota_is_that_of_an_account(platform, order, runpod):
    """60 requests a minute, with the seconds to wait."""
    runpod.world.quota_per_minute = 60
    account = open_account(runpod_settings(runpod), deadline_s=4.0)  # one that no other test shares

    for _ in range(60):
        await account.listing("pods")

    with pytest.raises(NoCapacityError, match="Too many requests"):
        await account.listing("pods")
    with pytest.raises(NoCapacityError, match="no more calls for"):
        await account.listing("pods")


@pytest.mark.parametrize("knobs", [{"is_provisioning_stuck": True}, {"images": {}}], ids=["stuck", "never pulls"])
async def test_a_pod_that_does_not_come_up_is_ended(open_platform, order, runpod, knobs):
    """A bad host, or an image that cannot be pulled."""
    for name, value in knobs.items():
        setattr(runpod.world, name, value)
    patient, impatient = open_platform(), open_platform(boot_minutes=0.01)

    handle = await patient.start(order)
    assert (await seen(patient, handle)).phase is Phase.STARTING
    observation = await until(impatient, handle, lambda now: now.phase.is_over)

    assert (observation.phase, observation.failure) == (Phase.FAILED, Failure.IMAGE)
    assert "not up within 0.01 minutes: its image cannot be pulled, or its host is bad" in observation.reason
    assert pods(runpod) == []


async def test_a_container_that_is_restarted_for_ever_is_ended(open_platform, order, runpod, monkeypatch):
    """RunPod reads RUNNING all the time; only the uptime tells."""
    monkeypatch.setattr(adapter_pods, "_CLOCKS_S", 1.0)
    runpod.world.restart_s = 0.5
    platform = open_platform(image="crash")

    handle = await platform.start(order)
    observation = await until(platform, handle, lambda now: now.phase.is_over)

    assert (observation.phase, observation.failure) == (Phase.FAILED, Failure.IMAGE)
    assert "was started again 3 times: the image or its command crashes" in observation.reason
    assert pods(runpod) == []


async def test_a_pod_that_lives_long_was_not_restarted(platform, order):
    """Its uptime grows with our clock, however often it is looked at."""
    handle = await platform.start(order)
    await until(platform, handle, lambda now: now.phase is Phase.RUNNING)

    for _ in range(40):
        assert (await seen(platform, handle)).phase is Phase.RUNNING
        await asyncio.sleep(0.05)
    assert [len(boots) for boots in platform._pods._watched[order.name].boots.values()] == [1]


async def test_a_stopped_pod_is_terminated_and_its_disk_leaves_the_bill(platform, order, runpod):
    """Preempted, or failed and stopped from inside."""
    handle = await platform.start(order)
    await until(platform, handle, lambda now: now.phase is Phase.RUNNING)
    (pod,) = pods(runpod)
    runpod.do(lambda _: pod.stop())

    observation = await until(platform, handle, lambda now: now.phase.is_over)

    assert (observation.phase, observation.workers_alive) == (Phase.FAILED, 0)
    assert "the pod was found stopped" in observation.reason
    assert pods(runpod) == []
    assert {line.kind for line in runpod.world.bill.lines} == {"compute", "stopped disk"}


async def test_a_pod_that_has_ended_itself_has_succeeded(platform, order, runpod):
    """It terminates itself only when its GPU workers have ended well."""
    handle = await platform.start(order)
    await until(platform, handle, lambda now: now.phase is Phase.RUNNING)
    (pod,) = pods(runpod)
    runpod.do(lambda world: world.delete_pod(pod.id))

    assert (await until(platform, handle, lambda now: now.phase.is_over)).phase is Phase.SUCCEEDED


@pytest.mark.parametrize(
    "fault",
    [Fault(status=500), Fault(status=200, html="{}"), Fault(status=200, html='{"pods": null}'), Fault(status=401)],
    ids=["500", "no list", "null", "401"],
)
def test_a_list_that_cannot_be_read_is_an_alarm(platform, runpod, tmp_path, fault):
    """The reaper raises: it never takes it for nothing to do."""
    script(runpod, replace(fault, method="GET"))

    with pytest.raises((OutcomeUnknownError, RejectedError)):
        reap(str(tmp_path), [platform], datetime.now(UTC))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"api_key": ""}, "RUNPOD_API_KEY"),
        ({"image": ""}, "FANFOLD_RUNPOD_IMAGE"),
        ({"emulator": "http://10.0.0.1:80"}, "FANFOLD_RUNPOD_EMULATOR"),
    ],
)
def test_a_setting_that_is_missing_is_named(open_platform, settings, field):
    """Before anything is asked of RunPod."""
    with pytest.raises(RefusedError, match=f"^{field}: "):
        open_platform(**settings)
