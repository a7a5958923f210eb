"""What a GPU job looks like on Cloud Run: offers, the Job resource, and what an execution tells. Pure."""

import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from google.cloud import run_v2

from gpu_jobs.errors import RefusedError
from gpu_jobs.jobs import Observation, Order, Phase
from gpu_jobs.offers import Offer, offers_of
from gpu_jobs.settings import Settings

CAP_S = 3600.0
"""A task with a GPU ends by force after this long."""
_MARGIN_S = 300.0
"""The order's expiry, at which GPU workers end by themselves, is so long before a task's end by force."""
_MOUNT = "/weights"
_SHAPES = {"nvidia-l4": ("4", "16Gi"), "nvidia-rtx-pro-6000": ("20", "80Gi")}


def offers_in(region: str, gpu: str) -> list[Offer]:
    """Raises `RefusedError` if the region lacks the GPU type, or all."""
    if gpu and gpu not in _SHAPES:
        raise RefusedError("FANFOLD_CLOUD_RUN_GPU", f"'{gpu}' is none of {', '.join(_SHAPES)}")
    everywhere = [offer for offer in offers_of("cloud_run", gpu=gpu) if offer.gpu in _SHAPES]
    here = [offer for offer in everywhere if offer.region == region]
    if not here:
        wanted = [gpu] if gpu else list(_SHAPES)
        places = {name: ", ".join(offer.region for offer in everywhere if offer.gpu == name) for name in wanted}
        where = "; ".join(f"{name} in {regions}" for name, regions in places.items())
        raise RefusedError("FANFOLD_CLOUD_RUN_REGION", f"{region} has no {' or '.join(wanted)}; use {where}")
    return here


def job_resource(order: Order, settings: Settings, now: datetime) -> run_v2.Job:
    """Its task timeout is a second line: GPU workers end at the order's expiry, before it."""
    cpu, memory = _SHAPES[order.offer.gpu]
    left_s = (order.expires_at - now).total_seconds() + _MARGIN_S
    container = run_v2.Container(
        image=settings.cloud_run_image,
        command=["python"],
        args=["-m", "gpu_jobs.image.cloud_run_task", order.campaign_uri, "--order", order.name],
        env=[*_plain(settings), *_secrets(settings)],
        resources=run_v2.ResourceRequirements(limits={"cpu": cpu, "memory": memory, "nvidia.com/gpu": "1"}),
    )
    template = run_v2.TaskTemplate(
        containers=[container],
        max_retries=0,
        timeout=timedelta(seconds=round(max(60.0, min(CAP_S, left_s)))),
        service_account=settings.cloud_run_service_account,
        node_selector=run_v2.NodeSelector(accelerator=order.offer.gpu),
        gpu_zonal_redundancy_disabled=True,
    )
    if bucket := settings.cloud_run_weights_bucket:
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


def _plain(settings: Settings) -> list[run_v2.EnvVar]:
    return [run_v2.EnvVar(name=name, value=value) for name, value in sorted(settings.cloud_run_env.items())]


def _secrets(settings: Settings) -> list[run_v2.EnvVar]:
    found = []
    for name, reference in sorted(settings.cloud_run_secrets.items()):
        secret, _, version = reference.partition(":")
        selector = run_v2.SecretKeySelector(secret=secret, version=version or "latest")
        found.append(run_v2.EnvVar(name=name, value_source=run_v2.EnvVarSource(secret_key_ref=selector)))
    return found


def observation(execution: run_v2.Execution, tasks: Sequence[run_v2.Task]) -> Observation:
    """What an execution tells; `tasks` matter once it is over.

    GPU workers that wait for their machine count as alive, or others would be ordered in their place.
    """
    over = execution.succeeded_count + execution.failed_count + execution.cancelled_count
    if not execution.completion_time:
        if not execution.running_count and not over:
            return Observation(phase=Phase.STARTING)
        return Observation(phase=Phase.RUNNING, workers_alive=execution.task_count - over)
    log = f"log: {execution.log_uri}" if execution.log_uri else ""
    detail = "\n".join(filter(None, [*(each.message for each in execution.conditions), log]))
    is_cancelled = any(
        each.execution_reason == run_v2.Condition.ExecutionReason.CANCELLED for each in execution.conditions
    )
    if execution.cancelled_count or is_cancelled:
        return Observation(phase=Phase.STOPPED, reason="stopped", detail=detail)
    if execution.succeeded_count == execution.task_count:
        return Observation(phase=Phase.SUCCEEDED, detail=detail)
    return Observation(phase=Phase.FAILED, reason=_reasons(tasks) or "failed", detail=detail)


def _reasons(tasks: Iterable[run_v2.Task]) -> str:
    counts = Counter(filter(None, (failure(task.last_attempt_result) for task in tasks)))
    return ", ".join(f"{reason} ({count}x)" if count > 1 else reason for reason, count in counts.items())


def failure(result: run_v2.TaskAttemptResult) -> str:
    """Why a task failed, in our words; "" if it did not. Its exit code is 0 also after some failures."""
    if result.status.code in _BY_CODE:
        return _BY_CODE[result.status.code]
    for text, reason in _BY_MESSAGE.items():
        if text in result.status.message.lower():
            return reason
    signum = result.term_signal or result.exit_code - 128
    if signum in set(signal.Signals):
        return f"killed by {signal.Signals(signum).name}"
    if result.exit_code:
        return f"exit code {result.exit_code}"
    return f"preempted, or failed by the platform: {result.status.message}"


_BY_CODE = {0: "", 1: "stopped", 4: "timed out"}
_BY_MESSAGE = {"memory limit": "out of memory", "configured timeout": "timed out"}
