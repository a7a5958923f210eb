"""Checks for requests that the service refuses, as far as its documentation says."""

import re
from collections.abc import Mapping

import grpc
from google.cloud import run_v2

GPU_CAP_S = 12 * 3600
_CAP_S = 168 * 3600
_MAX_TASKS, _MAX_RETRIES, _MAX_ENV, MAX_JOBS = 10_000, 10, 1_000, 1_000
_JOB_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")
_MINIMUM = {"nvidia-l4": (4.0, 16.0), "nvidia-rtx-pro-6000": (20.0, 80.0)}
"""The least number of CPUs and of GiB for each GPU type."""
GPU_REGIONS = {
    "nvidia-l4": ("asia-southeast1", "europe-west1", "europe-west4", "us-east4"),
    "nvidia-rtx-pro-6000": ("asia-southeast1", "europe-west4", "us-central1"),
}
_RESERVED = re.compile(r"CLOUD_RUN_(JOB|EXECUTION|TASK_\w+)|PORT|K_\w+")


class ApiError(Exception):
    """The service refuses the request."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> ApiError:
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, message)


def limits_of(template: run_v2.TaskTemplate) -> Mapping[str, str]:
    return template.containers[0].resources.limits if template.containers else {}


def cpus_of(template: run_v2.TaskTemplate) -> float:
    text = limits_of(template).get("cpu", "1")
    return float(text.removesuffix("m")) / (1000 if text.endswith("m") else 1)


def memory_gib_of(template: run_v2.TaskTemplate) -> float:
    text = limits_of(template).get("memory", "512Mi")
    return float(text[:-2]) / (1024 if text.endswith("Mi") else 1)


def check_job(job_id: str, region: str, job: run_v2.Job) -> None:
    """Raise the error with which the service would refuse this job."""
    if not _JOB_ID.fullmatch(job_id):
        raise invalid(f"job_id: '{job_id}' is not a valid name")
    if any(not _LABEL.fullmatch(value) for value in job.labels.values()):
        raise invalid("labels: values are at most 63 lower-case letters, digits, '_' and '-'")
    template = job.template.template
    if not template.containers or not template.containers[0].image:
        raise invalid("template.template.containers[0].image: must be given")
    if not 0 <= job.template.task_count <= _MAX_TASKS:
        raise invalid(f"template.task_count: must be at most {_MAX_TASKS}")
    if template.max_retries > _MAX_RETRIES:
        raise invalid(f"template.template.max_retries: must be at most {_MAX_RETRIES}")
    _check_env(template)
    _check_gpu(region, template)


def _check_env(template: run_v2.TaskTemplate) -> None:
    names = [each.name for each in template.containers[0].env]
    if len(names) > _MAX_ENV:
        raise invalid(f"env: at most {_MAX_ENV} variables")
    for name in names:
        if _RESERVED.fullmatch(name):
            raise invalid(f"env: the name {name} is reserved")


def _check_gpu(region: str, template: run_v2.TaskTemplate) -> None:
    gpu, count = template.node_selector.accelerator, limits_of(template).get("nvidia.com/gpu", "")
    timeout_s = template.timeout.total_seconds() if template.timeout else 0
    if timeout_s > (GPU_CAP_S if gpu else _CAP_S):
        raise invalid(f"timeout: must be at most {GPU_CAP_S if gpu else _CAP_S} seconds")
    if bool(gpu) != bool(count):
        raise invalid("node_selector.accelerator and the limit nvidia.com/gpu must be given together")
    if not gpu:
        return
    if count != "1":
        raise invalid("resources.limits: nvidia.com/gpu must be 1")
    if gpu not in _MINIMUM:
        raise invalid(f"node_selector.accelerator: unknown type '{gpu}'")
    if region not in GPU_REGIONS[gpu]:
        raise invalid(f"node_selector.accelerator: {gpu} is not available in region {region}")
    cpus, gib = _MINIMUM[gpu]
    if cpus_of(template) < cpus or memory_gib_of(template) < gib:
        raise invalid(f"resources.limits: {gpu} needs at least {cpus:g} CPU and {gib:g}Gi memory")
