"""What the Cloud Run adapter makes of orders, executions and errors, without any service."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.api_core import exceptions
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import run_v2
from google.longrunning import operations_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from gpu_jobs.errors import BalanceError, OutcomeUnknownError, QuotaError, RefusedError, RejectedError
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.orders import Phase
from gpu_jobs.platforms.cloud_run.adapter import CloudRunPlatform
from gpu_jobs.platforms.cloud_run.api import open_clients, translate
from gpu_jobs.platforms.cloud_run.jobs import TaskEnd, job_resource, observation, offers_in, task_end
from gpu_jobs.platforms.cloud_run.settings import CloudRunSettings
from gpu_jobs.testing import an_order

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SETTINGS = CloudRunSettings(
    project="mine",
    image="there/fanfold",
    service_account="worker@mine",
    secrets={"HF_TOKEN": "hub-token", "OTHER": "other:7"},
    env={"FANFOLD_MODEL_CACHE": "/tmp"},
    weights_bucket="weights",
)
KILLED = TaskEnd("killed by SIGKILL without a message: by maintenance, or its machine was lost", Failure.LOST)
EXITED = "The container exited with an error."
Reason, State = run_v2.Condition.ExecutionReason, run_v2.Condition.State


def an_l4_order(**changes):
    (offer,) = offers_in(SETTINGS.model_copy(update={"gpu": "nvidia-l4"}))
    asked = {"name": "ff-0123abcd-4567cdef-0003", "offer": offer, "num_workers": 3, **changes}
    return an_order(expires_at=NOW + timedelta(minutes=30), **asked)


def an_execution(*, conditions=(), is_over=True, **counts):
    return run_v2.Execution(
        task_count=4, conditions=conditions, completion_time=NOW if is_over else None, log_uri="https://logs", **counts
    )


def a_result(code, message="", **more):
    return run_v2.TaskAttemptResult(status=status_pb2.Status(code=code, message=message), **more)


@pytest.mark.parametrize(("gpu", "build"), [("nvidia-l4", "cu126"), ("nvidia-rtx-pro-6000", "cu130")])
def test_a_job_gets_the_build_of_the_image_that_its_gpu_needs(gpu, build):
    """Where the name leaves it open."""
    settings = SETTINGS.model_copy(update={"gpu": gpu, "image": "there/fanfold:{cuda}"})

    job = job_resource(an_l4_order(offer=offers_in(settings)[0]), settings, NOW)

    assert job.template.template.containers[0].image == f"there/fanfold:{build}"


def test_an_order_becomes_one_job_resource_with_a_task_per_gpu_worker():
    """One GPU each, no retries by the platform, no zonal redundancy, the campaign and the order as arguments."""
    order = an_l4_order()

    job = job_resource(order, SETTINGS, NOW)

    task = job.template.template
    (container,) = task.containers
    assert job.template.task_count == 3
    assert ("max_retries" in task, task.max_retries) == (True, 0)
    assert task.gpu_zonal_redundancy_disabled is True
    assert task.node_selector.accelerator == "nvidia-l4"
    assert dict(container.resources.limits) == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
    assert task.service_account == "worker@mine"
    assert list(container.args) == [
        "-m",
        "gpu_jobs.platforms.cloud_run.worker",
        order.campaign_uri,
        "--order",
        order.name,
    ]


def test_a_job_resource_is_labelled_with_store_root_campaign_and_expiry():
    """All within the alphabet of labels."""
    labels = job_resource(an_l4_order(), SETTINGS, NOW).labels

    expires = str(int((NOW + timedelta(minutes=30)).timestamp()))
    assert dict(labels) == {
        "fanfold-root": "0123abcd",
        "fanfold-campaign": "4567cdef",
        "fanfold-expires": expires,
    }


@pytest.mark.parametrize(("left_min", "expected_s"), [(-10, 60), (30, 35 * 60), (55, 3600), (600, 3600)])
def test_a_task_ends_by_force_after_its_order_and_before_the_cap(left_min, expected_s):
    """The order's own expiry comes five minutes earlier."""
    order = replace(an_l4_order(), expires_at=NOW + timedelta(minutes=left_min))

    assert job_resource(order, SETTINGS, NOW).template.template.timeout.total_seconds() == expected_s


def test_orders_expire_before_the_platform_cuts_them_off():
    """GPU workers drain at the expiry, not at the cap of an hour."""
    assert an_l4_order().offer.job_hours(12.0) * 3600 == 3600 - 300


def test_the_preview_s_twelve_hours_are_a_setting():
    """For the offer and for the service's own limit."""
    settings = SETTINGS.model_copy(update={"max_hours": 12.0, "gpu": "nvidia-l4"})
    (offer,) = offers_in(settings)
    order = replace(an_l4_order(offer=offer), expires_at=NOW + timedelta(hours=20))

    assert offer.job_hours(24.0) * 3600 == 12 * 3600 - 300
    assert job_resource(order, settings, NOW).template.template.timeout.total_seconds() == 12 * 3600


def test_secrets_travel_as_references_and_weights_as_a_mount():
    """No value of a secret is in the Job resource; the bucket is read-only."""
    task = job_resource(an_l4_order(), SETTINGS, NOW).template.template
    (container,), (volume,) = task.containers, task.volumes
    env = {each.name: each for each in container.env}

    assert env["FANFOLD_MODEL_CACHE"].value == "/tmp"
    references = [env[name].value_source.secret_key_ref for name in ("HF_TOKEN", "OTHER")]
    assert [(each.secret, each.version) for each in references] == [("hub-token", "latest"), ("other", "7")]
    assert env["HF_TOKEN"].value == ""
    assert (volume.gcs.bucket, volume.gcs.read_only) == ("weights", True)
    assert [(each.name, each.mount_path) for each in container.volume_mounts] == [("weights", "/weights")]


@pytest.mark.parametrize(
    ("region", "gpu", "field", "words"),
    [
        ("europe-west4", "nvidia-h100", "FANFOLD_CLOUD_RUN_GPU", "none of nvidia-l4, nvidia-rtx-pro-6000"),
        ("us-central1", "nvidia-l4", "FANFOLD_CLOUD_RUN_REGION", "us-central1 has no nvidia-l4; use nvidia-l4 in"),
        ("mars-1", "", "FANFOLD_CLOUD_RUN_REGION", "mars-1 has no nvidia-l4 or nvidia-rtx-pro-6000"),
    ],
)
def test_a_gpu_type_that_a_region_lacks_is_refused_with_where_it_is(region, gpu, field, words):
    """When the platform is opened, before anything is asked of the service."""
    settings = SETTINGS.model_copy(update={"region": region, "gpu": gpu})

    with pytest.raises(RefusedError, match=words) as refused:
        CloudRunPlatform(settings)

    assert refused.value.field == field


@pytest.mark.parametrize("name", ["project", "region", "image"])
def test_a_missing_setting_is_named(name):
    """By its environment variable."""
    with pytest.raises(RefusedError, match=f"FANFOLD_CLOUD_RUN_{name.upper()}: is not set"):
        CloudRunPlatform(SETTINGS.model_copy(update={name: ""}))


@pytest.mark.parametrize("address", ["run.googleapis.com:443", "0.0.0.0:9000", "127.0.0.1.example.com:1", "9000"])
def test_an_emulator_elsewhere_than_on_loopback_is_refused(address):
    """Requests to it carry neither credentials nor TLS."""
    with pytest.raises(RefusedError, match="FANFOLD_CLOUD_RUN_EMULATOR"):
        open_clients(address)


@pytest.mark.parametrize(
    ("counts", "phase", "alive"),
    [
        ({}, Phase.STARTING, 0),
        ({"running_count": 1}, Phase.RUNNING, 4),
        ({"running_count": 1, "failed_count": 1, "succeeded_count": 1}, Phase.RUNNING, 2),
        ({"cancelled_count": 1}, Phase.RUNNING, 3),
    ],
)
def test_an_execution_that_goes_on_counts_who_is_not_over(counts, phase, alive):
    """Those that wait for a machine too, or others would be ordered in their place."""
    seen = observation(an_execution(is_over=False, **counts), ())

    assert (seen.phase, seen.workers_alive) == (phase, alive)


@pytest.mark.parametrize(
    ("counts", "conditions", "phase"),
    [
        ({"succeeded_count": 4}, (), Phase.SUCCEEDED),
        ({"succeeded_count": 3, "failed_count": 1}, (), Phase.FAILED),
        ({"succeeded_count": 3, "cancelled_count": 1}, (), Phase.STOPPED),
        ({}, [run_v2.Condition(type_="Completed", execution_reason=Reason.CANCELLED)], Phase.STOPPED),
        ({}, [run_v2.Condition(type_="Completed", state=State.CONDITION_FAILED, message="why")], Phase.FAILED),
    ],
)
def test_only_tasks_that_all_succeeded_are_success(counts, conditions, phase):
    """A cancelled execution is over without an error, and is none."""
    seen = observation(an_execution(conditions=conditions, **counts), ())

    assert (seen.phase, seen.workers_alive) == (phase, 0)
    assert seen.detail.endswith("https://logs")
    assert bool(seen.reason) == (phase is not Phase.SUCCEEDED)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (a_result(code_pb2.OK), None),
        (a_result(code_pb2.CANCELLED, "Cancelled by user."), TaskEnd("stopped")),
        (
            a_result(code_pb2.DEADLINE_EXCEEDED, "The configured timeout was reached."),
            TaskEnd("timed out", Failure.TIMEOUT),
        ),
        (a_result(code_pb2.ABORTED, "The configured timeout was reached."), TaskEnd("timed out", Failure.TIMEOUT)),
        (
            a_result(code_pb2.ABORTED, "The configured memory limit was reached."),
            TaskEnd("out of memory", Failure.OUT_OF_MEMORY),
        ),
        (a_result(code_pb2.ABORTED, EXITED, exit_code=3), TaskEnd("exit code 3", Failure.USER_CODE)),
        (a_result(code_pb2.ABORTED, EXITED, exit_code=137), KILLED),
        (a_result(code_pb2.ABORTED, EXITED, term_signal=9), KILLED),
        (a_result(code_pb2.ABORTED, EXITED, term_signal=11), TaskEnd("killed by SIGSEGV", Failure.UNKNOWN)),
        (a_result(code_pb2.ABORTED, EXITED, exit_code=255), TaskEnd("exit code 255", Failure.USER_CODE)),
        (
            a_result(code_pb2.INTERNAL, "Internal error."),
            TaskEnd("preempted, or failed by the platform: Internal error.", Failure.PREEMPTED),
        ),
    ],
)
def test_a_failed_task_is_told_by_its_status_not_by_its_exit_code(result, expected):
    """Timeouts and memory kills come with exit code 0."""
    assert task_end(result) == expected


def test_the_reasons_of_all_tasks_are_told_once_each():
    """With how often."""
    tasks = [
        run_v2.Task(last_attempt_result=result)
        for result in (
            a_result(code_pb2.ABORTED, "The configured memory limit was reached."),
            a_result(code_pb2.OK),
            a_result(code_pb2.ABORTED, "The configured memory limit was reached."),
            a_result(code_pb2.ABORTED, "The container exited with an error.", exit_code=1),
        )
    ]

    seen = observation(an_execution(failed_count=3, succeeded_count=1), tasks)

    assert (seen.reason, seen.failure) == ("out of memory (2x), exit code 1", Failure.OUT_OF_MEMORY)


def test_an_image_that_cannot_be_started_is_told_by_its_condition():
    """Then there is no task to tell, and the message is nobody's to read."""
    missing = run_v2.Condition(
        type_="Completed",
        state=State.CONDITION_FAILED,
        reason=run_v2.Condition.CommonReason.CONTAINER_MISSING,
        message="quota/of-credits is not there",
    )

    assert observation(an_execution(conditions=[missing]), ()).failure is Failure.IMAGE


def an_operation_error(code, message="no"):
    """As the client raises it: without a class of its own."""
    operation = operations_pb2.Operation(done=True, error=status_pb2.Status(code=code, message=message))
    return GoogleAPICallError(message, errors=(operation.error,), response=operation)


@pytest.mark.parametrize(
    ("error", "ours", "words"),
    [
        (exceptions.ResourceExhausted("slow down"), QuotaError, "slow down"),
        (exceptions.FailedPrecondition("You have no quota"), QuotaError, "ask for more quota"),
        (exceptions.InvalidArgument("Quota violated:\nMemAllocPerProjectRegion"), QuotaError, "ask for more quota"),
        (exceptions.FailedPrecondition("CpuAllocPerProjectRegion requested: 20"), QuotaError, "ask for more quota"),
        (exceptions.NotFound("image quota/balance not found"), RejectedError, "not found"),
        (exceptions.PermissionDenied("The API requires a quota project"), RejectedError, "roles/run.developer"),
        (
            exceptions.PermissionDenied("no", error_info=error_details_pb2.ErrorInfo(reason="BILLING_DISABLED")),
            BalanceError,
            "billing is off",
        ),
        (exceptions.PermissionDenied("denied"), RejectedError, "run.jobs.create is missing.*roles/run.developer"),
        (exceptions.Unauthenticated("who?"), RejectedError, "gcloud auth application-default login"),
        (DefaultCredentialsError("none"), RejectedError, "gcloud auth application-default login"),
        (exceptions.NotFound("no such image"), RejectedError, "no such image"),
        (exceptions.InvalidArgument("bad cpu"), RejectedError, "bad cpu"),
        (exceptions.AlreadyExists("taken"), OutcomeUnknownError, "taken"),
        (exceptions.Aborted("race"), OutcomeUnknownError, "race"),
        (exceptions.ServiceUnavailable("gone"), OutcomeUnknownError, "gone"),
        (exceptions.DeadlineExceeded("late"), OutcomeUnknownError, "late"),
        (exceptions.Cancelled("cancelled"), OutcomeUnknownError, "cancelled"),
        (TimeoutError(), OutcomeUnknownError, "TimeoutError"),
        (an_operation_error(code_pb2.RESOURCE_EXHAUSTED), QuotaError, "no"),
        (an_operation_error(code_pb2.INVALID_ARGUMENT), RejectedError, "no"),
        (an_operation_error(code_pb2.PERMISSION_DENIED), RejectedError, "run.jobs.create is missing"),
        (an_operation_error(code_pb2.INTERNAL), OutcomeUnknownError, "no"),
        (GoogleAPICallError("neither response nor error"), OutcomeUnknownError, "neither"),
    ],
)
def test_every_error_of_the_clients_becomes_one_of_ours(error, ours, words):
    """With the place, the service's words and what to do; the operation's own error by its code."""
    with pytest.raises(ours, match=words) as raised, translate("run.jobs.create", "projects/mine"):
        raise error
    assert isinstance(raised.value, QuotaError | BalanceError) == (ours in (QuotaError, BalanceError))
