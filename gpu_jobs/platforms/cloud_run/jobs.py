"""A GPU job on Cloud Run: its offers, its Job resource, and what its execution says about it. Pure."""

import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from google.cloud import run_v2

from gpu_jobs.errors import RefusedError
from gpu_jobs.jobs.failures import Failure, failure_of_exit, gravest
from gpu_jobs.jobs.offers import Offer, offers_of
from gpu_jobs.jobs.orders import Observation, Order, Phase
from gpu_jobs.platforms.cloud_run.settings import CloudRunSettings

MARGIN_S = 300.0
"""Seconds between an order's expiry, when GPU workers end by themselves, and the kill by the service."""
_MOUNT = "/weights"
_SHAPES = {"nvidia-l4": (4, 16), "nvidia-rtx-pro-6000": (20, 80)}


def offers_in(settings: CloudRunSettings) -> list[Offer]:
    """The offers of the region, of one GPU type or of all.

    Raises:
        RefusedError: the region has no such GPU.
    """
    region, gpu = settings.region, settings.gpu
    if gpu and gpu not in _SHAPES:
        raise RefusedError("FANFOLD_CLOUD_RUN_GPU", f"'{gpu}' is none of {', '.join(_SHAPES)}")
    everywhere = [offer for offer in offers_of("cloud_run", gpu=gpu) if offer.gpu in _SHAPES]
    here = [offer for offer in everywhere if offer.region == region]
    if not here:
        wanted = [gpu] if gpu else list(_SHAPES)
        places = {name: ", ".join(offer.region for offer in everywhere if offer.gpu == name) for name in wanted}
        where = "; ".join(f"{name} in {regions}" for name, regions in places.items())
        raise RefusedError("FANFOLD_CLOUD_RUN_REGION", f"{region} has no {' or '.join(wanted)}; use {where}")
    return [replace(offer, max_hours=settings.max_hours - MARGIN_S / 3600) for offer in here]


def shape(gpu: str) -> tuple[int, int]:
    """CPUs and GiB of memory of a task with a GPU of this type: the least that the service allows."""
    return _SHAPES[gpu]


def job_resource(order: Order, settings: CloudRunSettings, now: datetime) -> run_v2.Job:
    """The Job resource of an order. Its timeout is only a safety net: GPU workers end before it, at the expiry."""
    cpus, memory_gib = shape(order.offer.gpu)
    left_s = (order.expires_at - now).total_seconds() + MARGIN_S
    container = run_v2.Container(
        image=order.offer.image(settings.image),
        command=["python"],
        args=["-m", "gpu_jobs.platforms.cloud_run.worker", order.campaign_uri, "--order", order.name],
        env=[*_plain(settings), *_secrets(settings)],
        resources=run_v2.ResourceRequirements(
            limits={"cpu": str(cpus), "memory": f"{memory_gib}Gi", "nvidia.com/gpu": "1"}
        ),
    )
    template = run_v2.TaskTemplate(
        containers=[container],
        max_retries=0,
        timeout=timedelta(seconds=round(max(60.0, min(settings.max_hours * 3600, left_s)))),
        service_account=settings.service_account,
        node_selector=run_v2.NodeSelector(accelerator=order.offer.gpu),
        gpu_zonal_redundancy_disabled=True,
    )
    if bucket := settings.weights_bucket:
        template.volumes = [run_v2.Volume(name="weights", gcs=run_v2.GCSVolumeSource(bucket=bucket, read_only=True))]
        container.volume_mounts = [run_v2.VolumeMount(name="weights", mount_path=_MOUNT)]
        template.containers = [container]
    return run_v2.Job(
        labels=_labels(order),
        template=run_v2.ExecutionTemplate(task_count=order.num_workers, template=template),
    )


def _labels(order: Order) -> dict[str, str]:
    hashes = dict(zip(("fanfold-root", "fanfold-campaign"), order.name.split("-")[1:3], strict=False))
    return {**hashes, "fanfold-expires": str(int(order.expires_at.timestamp()))}


def _plain(settings: CloudRunSettings) -> list[run_v2.EnvVar]:
    return [run_v2.EnvVar(name=name, value=value) for name, value in sorted(settings.env.items())]


def _secrets(settings: CloudRunSettings) -> list[run_v2.EnvVar]:
    found = []
    for name, reference in sorted(settings.secrets.items()):
        secret, _, version = reference.partition(":")
        selector = run_v2.SecretKeySelector(secret=secret, version=version or "latest")
        found.append(run_v2.EnvVar(name=name, value_source=run_v2.EnvVarSource(secret_key_ref=selector)))
    return found


def observation(execution: run_v2.Execution, tasks: Sequence[run_v2.Task]) -> Observation:
    """The state of a GPU job by its execution; `tasks` are read once it is over, for their exit codes.

    GPU workers that wait for a machine count as alive, or others would be ordered in their place.
    """
    over = execution.succeeded_count + execution.failed_count + execution.cancelled_count
    if not execution.completion_time:
        if not execution.running_count and not over:
            return Observation(phase=Phase.STARTING)
        return Observation(phase=Phase.RUNNING, workers_alive=max(0, execution.task_count - over))
    log = f"log: {execution.log_uri}" if execution.log_uri else ""
    detail = "\n".join(filter(None, [*(each.message for each in execution.conditions), log]))
    is_cancelled = any(
        each.execution_reason == run_v2.Condition.ExecutionReason.CANCELLED for each in execution.conditions
    )
    if execution.cancelled_count or is_cancelled:
        return Observation(phase=Phase.STOPPED, reason="stopped", detail=detail)
    if execution.succeeded_count == execution.task_count:
        return Observation(phase=Phase.SUCCEEDED, detail=detail)
    ends = [end for task in tasks if (end := task_end(task.last_attempt_result))]
    return Observation(
        phase=Phase.FAILED,
        reason=_reasons(ends) or "failed",
        detail=detail,
        failure=gravest(
            [*(end.failure for end in ends), *(_BY_CONDITION.get(each.reason) for each in execution.conditions)]
        ),
    )


class TaskEnd(NamedTuple):
    """Why a task failed."""

    reason: str
    failure: Failure | None = None


def _reasons(ends: Iterable[TaskEnd]) -> str:
    counts = Counter(end.reason for end in ends)
    return ", ".join(f"{reason} ({count}x)" if count > 1 else reason for reason, count in counts.items())


def task_end(result: run_v2.TaskAttemptResult) -> TaskEnd | None:
    """Why a task failed; None if it did not. The exit code alone is not enough: it is 0 after some failures.

    SIGKILL alone is not taken for lack of memory, for which the service has a message: "Tasks that use GPUs are not
    live migrated, so routine infrastructure maintenance terminates them" (Cloud Run, GPU for jobs).
    """
    if result.status.code in _BY_CODE:
        return _BY_CODE[result.status.code]
    for text, end in _BY_MESSAGE.items():
        if text in result.status.message.lower():
            return end
    signum = result.term_signal or result.exit_code - 128
    if signum == signal.SIGKILL:
        return TaskEnd("killed by SIGKILL without a message: by maintenance, or its machine was lost", Failure.LOST)
    if signum in set(signal.Signals):
        return TaskEnd(f"killed by {signal.Signals(signum).name}", failure_of_exit(-signum))
    if result.exit_code:
        return TaskEnd(f"exit code {result.exit_code}", failure_of_exit(result.exit_code))
    return TaskEnd(f"preempted, or failed by the platform: {result.status.message}", Failure.PREEMPTED)


_TIMED_OUT = TaskEnd("timed out", Failure.TIMEOUT)
_BY_CODE = {0: None, 1: TaskEnd("stopped"), 4: _TIMED_OUT}
_BY_MESSAGE = {
    "memory limit was reached": TaskEnd("out of memory", Failure.OUT_OF_MEMORY),
    "configured timeout was reached": _TIMED_OUT,
}
"""Parts of messages of the service, which has no code for these failures."""
_CommonReason = run_v2.Condition.CommonReason
_BY_CONDITION = dict.fromkeys(
    (
        _CommonReason.CONTAINER_MISSING,
        _CommonReason.CONTAINER_PERMISSION_DENIED,
        _CommonReason.CONTAINER_IMAGE_UNAUTHORIZED,
        _CommonReason.CONTAINER_IMAGE_AUTHORIZATION_CHECK_FAILED,
    ),
    Failure.IMAGE,
)
