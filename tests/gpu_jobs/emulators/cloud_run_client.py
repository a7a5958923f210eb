"""Google's blocking clients for Cloud Run against the emulator, and jobs to create with them."""

import time

import grpc
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials
from google.cloud import run_v2
from google.cloud.run_v2.services.executions.transports import ExecutionsGrpcTransport
from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport
from google.cloud.run_v2.services.tasks.transports import TasksGrpcTransport

PARENT = "projects/emulated/locations/europe-west4"
PATIENCE_S = 60.0
L4 = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
SLOWLY = "import time; time.sleep(600)"


class Client:
    """Google's blocking clients, over one of the two transports."""

    def __init__(self, emulator, transport):
        if transport == "grpc":
            channel = grpc.insecure_channel(emulator.grpc_address)
            self.jobs = run_v2.JobsClient(transport=JobsGrpcTransport(channel=channel))
            self.executions = run_v2.ExecutionsClient(transport=ExecutionsGrpcTransport(channel=channel))
            self.tasks = run_v2.TasksClient(transport=TasksGrpcTransport(channel=channel))
        else:
            asked = {
                "transport": "rest",
                "credentials": AnonymousCredentials(),
                "client_options": {"api_endpoint": emulator.rest_url},
            }
            self.jobs, self.executions = run_v2.JobsClient(**asked), run_v2.ExecutionsClient(**asked)
            self.tasks = run_v2.TasksClient(**asked)

    def create(self, name="job", **asked):
        request = run_v2.CreateJobRequest(parent=PARENT, job_id=name, job=a_job(**asked))
        return self.jobs.create_job(request, timeout=10).result(timeout=PATIENCE_S, polling=Retry(initial=0.05))

    def run(self, name="job", **overrides):
        request = run_v2.RunJobRequest(
            name=f"{PARENT}/jobs/{name}", overrides=run_v2.RunJobRequest.Overrides(**overrides)
        )
        return self.jobs.run_job(request, timeout=10).metadata.name

    def until(self, execution, holds):
        give_up_at = time.monotonic() + PATIENCE_S
        while not holds(seen := self.executions.get_execution(name=execution, timeout=10)):
            assert time.monotonic() < give_up_at, seen
            time.sleep(0.05)
        return seen

    def until_over(self, execution):
        return self.until(execution, lambda seen: seen.completion_time)

    def tasks_of(self, execution):
        """Page by page."""
        return list(self.tasks.list_tasks(run_v2.ListTasksRequest(parent=execution, page_size=1), timeout=10))


def a_job(code="pass", *, task_count=1, limits=None, gpu="", parallelism=0, labels=None, image="code", **task):
    container = run_v2.Container(
        image=image,
        args=[code],
        resources=run_v2.ResourceRequirements(limits=limits or {}),
        env=task.pop("env", ()),
    )
    node = {"node_selector": run_v2.NodeSelector(accelerator=gpu)} if gpu else {}
    template = run_v2.TaskTemplate(containers=[container], **node, **{"max_retries": 0, **task})
    execution = run_v2.ExecutionTemplate(task_count=task_count, parallelism=parallelism, template=template)
    return run_v2.Job(template=execution, labels=labels or {})
