"""GPU jobs as endpoints: what the adapter asks for, and what it makes of what goes wrong."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gpu_jobs.emulators.runpod import Fault
from gpu_jobs.errors import NoCapacityError, QuotaError
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.orders import Phase
from gpu_jobs.platforms.base import start_once
from gpu_jobs.platforms.runpod.replies import JobStatus
from gpu_jobs.platforms.runpod.serverless import job_end
from gpu_jobs.testing import an_order
from tests.contracts.runpod_bench import script, seen, until


@pytest.fixture
def serverless(open_platform):
    """Nothing runs there but what the test lets run."""
    return open_platform(modes=("serverless",), gpu="AMPERE_24", image="unpullable")


@pytest.fixture
def small_order(serverless):
    expires_at = datetime.now(UTC) + timedelta(hours=2)
    return an_order(offer=serverless.offers()[0], num_workers=2, expires_at=expires_at)


async def test_two_gpu_workers_are_one_endpoint_with_two_jobs(serverless, small_order, runpod):
    """With RunPod's own time limits, two minutes after the deadline in its name."""
    handle = await serverless.start(small_order)

    (endpoint,) = runpod.world.endpoints.values()
    assert endpoint.body.name == f"{small_order.name}-w0-1-t{int(small_order.expires_at.timestamp())}"
    assert (endpoint.body.workers.min, endpoint.body.workers.max, endpoint.body.gpu.pools) == (0, 2, ["AMPERE_24"])
    assert endpoint.body.gpu.min_cuda_version == "12.6"
    assert [job.input["slot"] for job in endpoint.jobs.values()] == [0, 1]
    for job in endpoint.jobs.values():
        assert job.policy.ttl == job.policy.execution_timeout
        assert 7200_000 < job.policy.ttl <= 7320_000
    assert (await seen(serverless, handle)).phase is Phase.STARTING


async def test_an_endpoint_whose_jobs_are_refused_is_deleted(serverless, small_order, runpod):
    """Nothing was started, and nothing is left."""
    script(runpod, Fault(path="/run$", status=400, detail="queue is full"))

    with pytest.raises(NoCapacityError, match="queue is full"):
        await serverless.start(small_order)

    assert runpod.world.endpoints == {}


async def test_an_endpoint_that_was_made_and_never_used_is_deleted(serverless, small_order, runpod, monkeypatch):
    """The reply to its creation was lost, so that its jobs were never queued: another order takes its place."""
    script(runpod, Fault(path="/v2/serverless$", method="POST", reply_is_lost=True))

    handle = await start_once(serverless, small_order)
    assert (await seen(serverless, handle)).phase is Phase.STARTING
    monkeypatch.setattr(serverless._endpoints, "_find_lag_s", 0.0)
    observation = await seen(serverless, handle)

    assert (observation.phase, observation.reason) == (
        Phase.GONE,
        "made, but its jobs were never queued: the request was lost",
    )
    assert runpod.world.endpoints == {}


async def test_the_account_s_worker_quota_is_no_capacity(serverless, small_order, runpod):
    """Five, over all endpoints."""
    await serverless.start(replace(small_order, num_workers=4))

    with pytest.raises(QuotaError, match="workers quota"):
        await serverless.start(replace(small_order, name="ff-other"))


@pytest.mark.parametrize("image", ["unpullable", "crash"])
async def test_an_endpoint_whose_workers_never_work_is_deleted(open_platform, small_order, runpod, image):
    """The image cannot be pulled, or ends at once."""
    asked = {"modes": ("serverless",), "image": image}
    patient, impatient = open_platform(**asked), open_platform(**asked, boot_minutes=0.02)

    handle = await patient.start(small_order)
    observation = await until(impatient, handle, lambda now: now.phase.is_over)

    assert (observation.phase, observation.failure) == (Phase.FAILED, Failure.IMAGE)
    assert "workers are unhealthy, so the image is bad or cannot be pulled" in observation.reason
    assert runpod.world.endpoints == {}


HOSTILE = "no image found: quota of model credits exceeded, timed out, evicted\nexit code 137"


@pytest.mark.parametrize(
    ("status", "error", "failure"),
    [
        ("FAILED", f"exit code 1\n{HOSTILE}", Failure.USER_CODE),
        ("FAILED", f"exit code 137\n{HOSTILE}", Failure.OUT_OF_MEMORY),
        ("FAILED", f"killed by SIGKILL\n{HOSTILE}", Failure.OUT_OF_MEMORY),
        ("FAILED", f"killed by SIGTERM\n{HOSTILE}", Failure.UNKNOWN),
        ("FAILED", '{"error_type": "ValueError", "error_message": "no image found: exit code 137"}', None),
        ("TIMED_OUT", None, Failure.TIMEOUT),
        ("CANCELLED", None, None),
    ],
)
def test_a_failed_job_is_told_by_its_status_and_its_exit_code_not_by_its_log(status, error, failure):
    """Below the first line is what the user's code has printed; it is shown, and decides nothing."""
    end = job_end(JobStatus(status=status, error=error))

    assert end.failure is failure
    assert "\n" not in end.reason
    assert end.log == ("" if "\n" not in (error or "") else HOSTILE)
