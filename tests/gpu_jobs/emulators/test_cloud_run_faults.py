"""What can be scripted to befall the calls and tasks of the Cloud Run emulator, as Google's clients see it."""

import signal
import time

import pytest
from google.api_core import exceptions
from google.api_core.retry import Retry
from google.cloud import run_v2

from gpu_jobs.emulators.cloud_run import Fault, TaskFault
from tests.chaos.havoc import wait_for
from tests.gpu_jobs.emulators.cloud_run_client import PARENT, PATIENCE_S, SLOWLY, a_job


@pytest.mark.parametrize(("status", "error"), [(503, exceptions.ServiceUnavailable), (429, exceptions.TooManyRequests)])
def test_a_call_can_be_refused_on_its_turn(either, emulator, status, error):
    """The first goes well, the second does not, and nothing is done; the third goes well."""
    either.create()
    emulator.world.script.faults.append(Fault(method="RunJob", status=status, after_calls=1))

    either.run()
    with pytest.raises(error):
        either.run()
    either.run()

    assert emulator.world.num_started == 2


def test_a_reply_can_be_lost_after_the_deed(either, emulator):
    """The client hears of a broken connection; the job was run."""
    either.create()
    emulator.world.script.faults.append(Fault(method="RunJob", reply_is_lost=True))

    with pytest.raises((exceptions.GoogleAPICallError, OSError)):
        either.run()

    assert emulator.world.num_started == 1


def test_a_call_can_be_so_slow_that_its_deadline_passes(client, emulator):
    """A caller that has gone is not served."""
    client.create()
    emulator.world.script.faults.append(Fault(method="RunJob", latency_s=0.5))

    with pytest.raises(exceptions.DeadlineExceeded):
        client.jobs.run_job(name=f"{PARENT}/jobs/job", timeout=0.1)
    time.sleep(1.0)  # for what it must not do

    assert emulator.world.num_started == 0


def test_an_operation_can_fail(either, emulator):
    """The call goes well, its operation does not."""
    fault = Fault(method="CreateJob", status=429, message="no quota", is_in_operation=True)
    emulator.world.script.faults.append(fault)

    request = run_v2.CreateJobRequest(parent=PARENT, job_id="job", job=a_job())

    operation = either.jobs.create_job(request, timeout=10)

    with pytest.raises(exceptions.GoogleAPICallError, match="no quota"):
        operation.result(timeout=PATIENCE_S, polling=Retry(initial=0.05))

    assert emulator.world.jobs == {}


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("killed", 13, "Internal error."),
        ("out_of_memory", 10, "The configured memory limit was reached."),
        ("crashed", 10, "The container exited with an error."),
    ],
)
def test_a_task_can_be_struck(client, emulator, kind, code, message):
    """By a fault of the infrastructure, of memory, or of its own."""
    emulator.world.script.task_faults.append(TaskFault(kind=kind, after_s=0.1))
    client.create(code=SLOWLY)

    name = client.run()
    seen, (task,) = client.until_over(name), client.tasks_of(name)

    assert seen.failed_count == 1
    status = task.last_attempt_result.status
    assert (status.code, status.message) == (code, message)
    assert task.last_attempt_result.term_signal == (signal.SIGKILL if kind == "crashed" else 0)


def test_a_maintenance_pauses_a_task_and_ends_nothing(client, emulator, tmp_path):
    """SIGTSTP, and later SIGCONT."""
    code = (
        "import pathlib, signal, time; told = [];"
        "signal.signal(signal.SIGTSTP, lambda *_: told.append('stop'));"
        "signal.signal(signal.SIGCONT, lambda *_: told.append('go on'));"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch();"
        "any(time.sleep(0.05) for _ in iter(lambda: 'go on' in told, True));"
        "raise SystemExit(told != ['stop', 'go on'])"
    )
    client.create(code=code)
    name = client.run()
    wait_for((tmp_path / "ready").exists)

    emulator.strike("job", 0, TaskFault(kind="maintenance", pause_s=0.1))

    assert client.until_over(name).succeeded_count == 1


def test_a_start_can_take_long(client, emulator):
    """Until then nothing runs and nothing is billed; a cancel meanwhile ends it unbilled."""
    emulator.world.start_latency_s = 0.5
    client.create(code=SLOWLY)
    name = client.run()

    assert client.executions.get_execution(name=name, timeout=10).running_count == 0
    client.executions.cancel_execution(name=name, timeout=10)

    assert client.until_over(name).cancelled_count == 1
    assert emulator.world.bill.lines == []
