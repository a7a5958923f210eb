"""The Cloud Run emulator as Google's own clients see it: gRPC and REST, blocking and not."""

import asyncio
import os
import time
from datetime import timedelta
from itertools import pairwise

import psutil
import pytest
from google.api_core import exceptions
from google.api_core.retry import Retry
from google.cloud import run_v2

from gpu_jobs.emulators.cloud_run import rehearsal
from gpu_jobs.platforms.cloud_run.api import open_clients
from gpu_jobs.platforms.cloud_run.settings import CloudRunSettings
from tests.chaos.havoc import wait_for
from tests.gpu_jobs.emulators.cloud_run_client import L4, PARENT, PATIENCE_S, SLOWLY, a_job


def test_a_job_is_created_run_looked_at_and_deleted(either, emulator, tmp_path):
    """The path of every GPU job; each task is a process that knows its place."""
    code = "import os; open(f\"{os.environ['OUT']}/{os.environ['CLOUD_RUN_TASK_INDEX']}\", 'w').write(repr(os.environ))"
    created = either.create(code=code, task_count=3, env=[run_v2.EnvVar(name="OUT", value=str(tmp_path))])
    assert (created.name, created.latest_created_execution.name) == (f"{PARENT}/jobs/job", "")

    name = either.run()
    seen = either.until_over(name)
    tasks = either.tasks_of(name)
    job = either.jobs.get_job(name=created.name, timeout=10)

    assert (seen.succeeded_count, seen.failed_count, seen.running_count) == (3, 0, 0)
    assert [(task.index, task.last_attempt_result.status.code) for task in tasks] == [(0, 0), (1, 0), (2, 0)]
    assert job.latest_created_execution.name == name
    assert job.latest_created_execution.completion_time
    assert [each.name for each in either.jobs.list_jobs(parent=PARENT, timeout=10)] == [job.name]
    assert [each.name for each in either.executions.list_executions(parent=job.name, timeout=10)] == [name]
    for index in range(3):
        told = (tmp_path / str(index)).read_text()
        assert "'CLOUD_RUN_JOB': 'job'" in told
        assert f"'CLOUD_RUN_EXECUTION': '{name.rpartition('/')[2]}'" in told
        assert "'CLOUD_RUN_TASK_COUNT': '3'" in told
    either.jobs.delete_job(name=job.name, timeout=10).result(timeout=PATIENCE_S)
    with pytest.raises(exceptions.NotFound, match="Resource 'job' of kind 'JOB' in region 'europe-west4' in project"):
        either.jobs.get_job(name=job.name, timeout=10)


async def test_the_asynchronous_clients_are_answered_too(emulator):
    """Those that the adapter uses."""
    clients = open_clients(emulator.grpc_address)
    request = run_v2.CreateJobRequest(parent=PARENT, job_id="job", job=a_job())

    created = await (await clients.jobs.create_job(request, timeout=10)).result(timeout=PATIENCE_S)
    running = await clients.jobs.run_job(name=created.name, timeout=10)
    give_up_at = time.monotonic() + PATIENCE_S
    while not (seen := await clients.executions.get_execution(name=running.metadata.name, timeout=10)).completion_time:
        assert time.monotonic() < give_up_at, seen
        await asyncio.sleep(0.05)

    assert seen.succeeded_count == 1
    assert [task.index async for task in await clients.tasks.list_tasks(parent=seen.name, timeout=10)] == [0]


def test_a_second_job_of_a_name_is_refused(either):
    """gRPC says AlreadyExists, REST its parent."""
    either.create()

    with pytest.raises(exceptions.Conflict):
        either.create()


@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [
        ("Upper", {}, "not a valid name"),
        ("1st", {}, "not a valid name"),
        ("x" * 64, {}, "not a valid name"),
        ("job", {"task_count": 10_001}, "task_count"),
        ("job", {"max_retries": 11}, "max_retries"),
        ("job", {"labels": {"a": "Not a label"}}, "labels"),
        ("job", {"image": ""}, "image"),
        ("job", {"env": [run_v2.EnvVar(name="CLOUD_RUN_JOB", value="mine")]}, "reserved"),
        ("job", {"env": [run_v2.EnvVar(name=f"A{n}", value="") for n in range(1001)]}, "at most 1000"),
        ("job", {"gpu": "nvidia-l4"}, "together"),
        ("job", {"limits": L4}, "together"),
        ("job", {"gpu": "nvidia-l4", "limits": {**L4, "nvidia.com/gpu": "2"}}, "must be 1"),
        ("job", {"gpu": "nvidia-l4", "limits": {**L4, "cpu": "2"}}, "at least 4 CPU"),
        ("job", {"gpu": "nvidia-l4", "limits": {**L4, "memory": "8Gi"}}, "16Gi memory"),
        ("job", {"gpu": "nvidia-rtx-pro-6000", "limits": L4}, "at least 20 CPU"),
        ("job", {"gpu": "nvidia-h100", "limits": L4}, "unknown type"),
        ("job", {"gpu": "nvidia-l4", "limits": L4, "timeout": timedelta(seconds=43201)}, "at most 43200"),
        ("job", {"timeout": timedelta(days=8)}, "at most 604800"),
    ],
)
def test_what_the_service_refuses_is_refused(client, emulator, name, asked, words):
    """As an invalid argument that names it; nothing is created."""
    with pytest.raises(exceptions.InvalidArgument, match=words):
        client.create(name, **asked)

    assert emulator.world.jobs == {}


def test_a_region_without_the_gpu_type_is_refused(client):
    """By the region."""
    job = a_job(gpu="nvidia-l4", limits=L4)

    with pytest.raises(exceptions.InvalidArgument, match="nvidia-l4 is not available in region us-central1"):
        client.jobs.create_job(
            run_v2.CreateJobRequest(parent="projects/emulated/locations/us-central1", job_id="job", job=job), timeout=10
        )


def test_another_project_or_a_missing_permission_is_denied(either, emulator):
    """By the name of the permission."""
    request = run_v2.CreateJobRequest(parent="projects/others/locations/europe-west4", job_id="job", job=a_job())
    with pytest.raises(exceptions.Forbidden, match=r"'run.jobs.create' denied on resource 'projects/others'"):
        either.jobs.create_job(request, timeout=10)
    emulator.world.denied.add("run.jobs.run")
    either.create()
    with pytest.raises(exceptions.Forbidden, match=r"run.jobs.run"):
        either.run()


def test_without_quota_a_gpu_job_is_refused_and_with_little_its_tasks_wait(client, emulator):
    """The quota counts GPUs at once."""
    emulator.world.gpu_quota.update({"nvidia-l4": 1, "nvidia-rtx-pro-6000": 0})
    big = {"cpu": "20", "memory": "80Gi", "nvidia.com/gpu": "1"}
    with pytest.raises(exceptions.FailedPrecondition, match="quota"):
        client.create("big", gpu="nvidia-rtx-pro-6000", limits=big)
    client.create(code="import time; time.sleep(0.3)", gpu="nvidia-l4", limits=L4, task_count=3)

    assert client.until_over(client.run()).succeeded_count == 3

    lines = sorted(emulator.world.bill.lines, key=lambda line: line.began_s)
    assert [first.ended_s <= second.began_s for first, second in pairwise(lines)] == [True, True]


def test_a_task_is_retried_as_often_as_asked(client, tmp_path):
    """It knows its attempt; the others of its execution run on."""
    code = "import os; raise SystemExit(os.environ['CLOUD_RUN_TASK_INDEX'] == '0' and 7)"
    client.create(code=code, task_count=2, max_retries=2)

    name = client.run()
    seen, tasks = client.until_over(name), client.tasks_of(name)

    assert (seen.succeeded_count, seen.failed_count, seen.retried_count) == (1, 1, 1)
    assert (tasks[0].retried, tasks[0].last_attempt_result.exit_code) == (2, 7)
    assert tasks[0].last_attempt_result.status.message == "The container exited with an error."
    (condition,) = seen.conditions
    assert condition.message.startswith(f"Task {name.rpartition('/')[2]}-task0 failed with exit code: 7")


def test_a_task_that_is_too_slow_is_ended_with_exit_code_zero(client):
    """Only its status says that it failed."""
    client.create(code=SLOWLY, timeout=timedelta(seconds=1))

    name = client.run()
    seen, (task,) = client.until_over(name), client.tasks_of(name)

    assert seen.failed_count == 1
    assert (task.last_attempt_result.exit_code, task.last_attempt_result.status.code) == (0, 4)


def test_a_cancelled_execution_ends_its_operation_without_an_error(client, tmp_path):
    """Its tasks hear SIGTERM; one that does not listen is killed after the grace, with its children."""
    code = (
        "import os, pathlib, signal, subprocess, time;"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen(['sleep', '600']);"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid));"
        "time.sleep(600)"
    )
    client.create(code=code)
    operation = client.jobs.run_job(name=f"{PARENT}/jobs/job", timeout=10)
    name = operation.metadata.name
    wait_for(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text())

    client.executions.cancel_execution(name=name, timeout=10)
    seen = client.until_over(name)

    assert operation.result(timeout=PATIENCE_S, polling=Retry(initial=0.05)).cancelled_count == 1
    assert (seen.cancelled_count, seen.succeeded_count, seen.failed_count) == (1, 0, 0)
    (condition,) = seen.conditions
    assert condition.execution_reason == run_v2.Condition.ExecutionReason.CANCELLED
    child = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    with pytest.raises(exceptions.FailedPrecondition):
        client.executions.cancel_execution(name=name, timeout=10)


def test_deleting_a_job_ends_what_runs_of_it(client, emulator):
    """And its bill."""
    client.create(code=SLOWLY)
    client.until(client.run(), lambda seen: seen.running_count)

    client.jobs.delete_job(name=f"{PARENT}/jobs/job", timeout=10)
    wait_for(lambda: not emulator.world.bill.num_running)

    (line,) = emulator.world.bill.lines
    assert line.ended_s is not None


def test_overrides_replace_arguments_and_merge_the_environment(client, tmp_path):
    """Of one run; the job keeps its own."""
    code = f"import os; open({str(tmp_path / 'told')!r}, 'a').write(os.environ['A'] + os.environ['B'] + ';')"
    client.create(env=[run_v2.EnvVar(name="A", value="a"), run_v2.EnvVar(name="B", value="b")])
    changed = run_v2.RunJobRequest.Overrides.ContainerOverride(args=[code], env=[run_v2.EnvVar(name="B", value="2")])

    seen = client.until_over(client.run(container_overrides=[changed], task_count=2))

    assert seen.succeeded_count == 2
    assert (tmp_path / "told").read_text() == "a2;a2;"


def test_no_more_tasks_than_allowed_run_at_once(client, emulator):
    """In the order of their indices."""
    client.create(code="import time; time.sleep(0.2)", task_count=4, parallelism=1)

    client.until_over(client.run())

    lines = emulator.world.bill.lines
    assert [line.task.rpartition("-task")[2] for line in lines] == ["0", "1", "2", "3"]
    assert all(first.ended_s <= second.began_s for first, second in pairwise(lines))


def test_an_instance_is_billed_for_its_whole_life_in_steps_of_100_ms(client, emulator):
    """CPU, memory and GPU."""
    client.create(code="import time; time.sleep(0.25)", gpu="nvidia-l4", limits=L4)

    client.until_over(client.run())

    bill = emulator.world.bill
    (line,) = bill.lines
    lasted_s = line.ended_s - line.began_s
    assert lasted_s <= line.billed_s < lasted_s + 0.1 + 1e-9
    assert round(line.billed_s * 10, 6).is_integer()
    assert bill.usd == pytest.approx(line.billed_s * (4 * 0.000018 + 16 * 0.000002 + 0.67 / 3600))
    assert f"${bill.usd:.4f}" in bill.summary()


def test_a_rehearsal_leads_the_adapter_to_it(tmp_path, monkeypatch):
    """All settings that it needs, a folder for logs, and a bill for a person."""
    with rehearsal(tmp_path / "to" / "logs") as running:
        for name, value in running.environ.items():
            monkeypatch.setenv(name, value)
        settings = CloudRunSettings()
        told = running.bill()

    assert (settings.project, settings.image) == ("emulated", "fanfold")
    assert settings.emulator.startswith("127.0.0.1:")
    assert "$0.0000" in told
    assert os.listdir(tmp_path / "to" / "logs") == []
