"""An emulated execution, whose tasks are real processes."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from google.cloud import run_v2
from google.longrunning import operations_pb2
from google.rpc import code_pb2, status_pb2

from gpu_jobs.emulators.cloud_run.bill import BillLine
from gpu_jobs.emulators.cloud_run.operations import finish
from gpu_jobs.emulators.cloud_run.rules import cpus_of, memory_gib_of
from gpu_jobs.emulators.cloud_run.script import TaskFault

if TYPE_CHECKING:
    from gpu_jobs.emulators.cloud_run.world import World

_MANY = 10_000
_State = run_v2.Condition.State
_Reason = run_v2.Condition.ExecutionReason
# A child of each task waits until the emulator's pipe closes, so that the task's process group dies with the emulator.
_DIE_WITH_PARENT = 'exec 3<&0; { read -r _ <&3; kill -9 -- -$$; } & exec "$@" </dev/null 3<&-'


class RunningExecution:
    """Runs its tasks in index order, at most `parallelism` at once; when a task fails, the others continue."""

    def __init__(self, world: "World", name: str, job: run_v2.Job, overrides: run_v2.RunJobRequest.Overrides) -> None:
        self._world = world
        self._template = run_v2.TaskTemplate(job.template.template)
        container = self._template.containers[0]
        for each in overrides.container_overrides:
            container.args = [] if each.clear_args else each.args or container.args
            names = {env.name for env in each.env}
            container.env = [*(env for env in container.env if env.name not in names), *each.env]
        if run_v2.RunJobRequest.Overrides.pb(overrides).HasField("timeout"):
            self._template.timeout = overrides.timeout
        self.resource = run_v2.Execution(
            name=name,
            job=job.name,
            labels=dict(job.labels),
            task_count=overrides.task_count or job.template.task_count,
            parallelism=job.template.parallelism,
            template=self._template,
            create_time=datetime.now(UTC),
            log_uri=f"file://{world.log_dir}/{name.rpartition('/')[2]}",
        )
        self.tasks = [self._task(index) for index in range(self.resource.task_count)]
        self._slots = asyncio.Semaphore(self.resource.parallelism or _MANY)
        self._is_cancelled = False
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._ends: dict[int, TaskFault] = {}
        self._main: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        return bool(self.resource.completion_time)

    def reference(self) -> run_v2.ExecutionReference:
        return run_v2.ExecutionReference(name=self.resource.name, create_time=self.resource.create_time)

    def start(self, operation: operations_pb2.Operation) -> None:
        self._main = asyncio.create_task(self._run(operation))

    def cancel(self) -> None:
        """Send SIGTERM to every process, and SIGKILL after the grace."""
        self._is_cancelled = True
        for process in self._processes.values():
            asyncio.create_task(self._stop(process))  # noqa: RUF006 - ends with the process

    def kill(self) -> None:
        for process in self._processes.values():
            _kill_group(process)

    async def wait(self) -> None:
        if self._main is not None:
            await self._main

    def strike(self, index: int, fault: TaskFault) -> None:
        """Apply a fault to a running task now."""
        process = self._processes[index]
        if fault.kind != "maintenance":
            self._ends[index] = fault
            _kill_group(process)
            return
        _signal_group(process, signal.SIGTSTP)
        asyncio.get_running_loop().call_later(fault.pause_s, _signal_group, process, signal.SIGCONT)

    def _task(self, index: int) -> run_v2.Task:
        return run_v2.Task(
            name=f"{self.resource.name}/tasks/{self.resource.name.rpartition('/')[2]}-task{index}",
            job=self.resource.job,
            execution=self.resource.name,
            index=index,
            max_retries=self._template.max_retries,
        )

    async def _run(self, operation: operations_pb2.Operation) -> None:
        await asyncio.sleep(self._world.start_latency_s)
        async with asyncio.TaskGroup() as group:
            for task in self.tasks:
                group.create_task(self._run_task(task))
        one = self.resource
        if self._is_cancelled:
            end = (_State.CONDITION_FAILED, _Reason.CANCELLED, "Execution was cancelled.")
        elif one.succeeded_count == one.task_count:
            end = (_State.CONDITION_SUCCEEDED, _Reason.EXECUTION_REASON_UNDEFINED, "")
        else:
            end = (_State.CONDITION_FAILED, _Reason.NON_ZERO_EXIT_CODE, self._failure())
        state, reason, message = end
        one.conditions = [run_v2.Condition(type_="Completed", state=state, message=message, execution_reason=reason)]
        one.completion_time = datetime.now(UTC)
        if one.job in self._world.jobs:
            latest = self._world.jobs[one.job].latest_created_execution
            if latest.name == one.name:
                latest.completion_time = one.completion_time
        finish(operation, one)

    def _failure(self) -> str:
        for task in self.tasks:
            last = task.last_attempt_result
            if last.status.code:
                name = task.name.rpartition("/")[2]
                return f"Task {name} failed with exit code: {last.exit_code} and message: {last.status.message}"
        return ""

    async def _run_task(self, task: run_v2.Task) -> None:
        gpu = self._template.node_selector.accelerator
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._slots)
            if gpu in self._world.gpus_free:
                await stack.enter_async_context(self._world.gpus_free[gpu])
            result = _CANCELLED
            for attempt in range(self._template.max_retries + 1):
                if self._is_cancelled:
                    break
                task.retried = attempt
                result = await self._attempt(task, attempt)
                if not result.status.code:
                    break
        task.last_attempt_result = result
        task.completion_time = datetime.now(UTC)
        self.resource.retried_count += task.retried > 0
        if self._is_cancelled:
            self.resource.cancelled_count += 1
        elif result.status.code:
            self.resource.failed_count += 1
        else:
            self.resource.succeeded_count += 1

    async def _attempt(self, task: run_v2.Task, attempt: int) -> run_v2.TaskAttemptResult:
        line = BillLine(
            task=task.name,
            attempt=attempt,
            cpus=cpus_of(self._template),
            memory_gib=memory_gib_of(self._template),
            gpu=self._template.node_selector.accelerator,
        )
        self._world.bill.lines.append(line)
        self.resource.running_count += 1
        try:
            return await self._live(task, attempt)
        finally:
            self.resource.running_count -= 1
            line.ended_s = asyncio.get_running_loop().time()

    async def _live(self, task: run_v2.Task, attempt: int) -> run_v2.TaskAttemptResult:
        process = self._processes[task.index] = await self._spawn(task, attempt)
        task.start_time = self.resource.start_time = datetime.now(UTC)
        fault = self._world.script.take_for_task(task.index)
        timer = None
        if fault is not None:
            timer = asyncio.get_running_loop().call_later(fault.after_s, self.strike, task.index, fault)
        is_late = False
        try:
            code = await asyncio.wait_for(process.wait(), self._template.timeout.total_seconds())
        except TimeoutError:
            is_late = True
            await self._stop(process)
            code = await process.wait()
        finally:
            if timer is not None:
                timer.cancel()
            _kill_group(process)
            await process.wait()
            del self._processes[task.index]
        return self._result(code, self._ends.pop(task.index, None), is_late=is_late)

    def _result(self, code: int, fault: TaskFault | None, *, is_late: bool) -> run_v2.TaskAttemptResult:
        if self._is_cancelled:
            return _CANCELLED
        if is_late:
            return _ended(code_pb2.DEADLINE_EXCEEDED, "The configured timeout was reached.")
        if fault is not None and fault.kind in _STRUCK:
            return _STRUCK[fault.kind]
        if not code:
            return _ended(code_pb2.OK, "")
        message = "The container exited with an error."
        return _ended(code_pb2.ABORTED, message, exit_code=max(0, code), term_signal=max(0, -code))

    async def _spawn(self, task: run_v2.Task, attempt: int) -> asyncio.subprocess.Process:
        container = self._template.containers[0]
        image = self._world.images[container.image]
        short = self.resource.name.rpartition("/")[2]
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.environ.get("HOME", "/"),
            **image.env,
            **{each.name: each.value for each in container.env if not each.value_source},
            "CLOUD_RUN_JOB": self.resource.job.rpartition("/")[2],
            "CLOUD_RUN_EXECUTION": short,
            "CLOUD_RUN_TASK_INDEX": str(task.index),
            "CLOUD_RUN_TASK_COUNT": str(self.resource.task_count),
            "CLOUD_RUN_TASK_ATTEMPT": str(attempt),
        }
        argv = [*image.argv, *container.command, *container.args]
        logs = self._world.log_dir / short
        logs.mkdir(exist_ok=True)
        with (logs / f"task{task.index}-attempt{attempt}.log").open("wb") as log:
            return await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", _DIE_WITH_PARENT, "task", *argv,
                stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log, env=env, start_new_session=True,
            )  # fmt: skip

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        """Send SIGTERM to its first process and, after the grace, SIGKILL to all, as the container contract says."""
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self._world.stop_grace_s)
        except TimeoutError:
            _kill_group(process)


def _ended(code: int, message: str, *, exit_code: int = 0, term_signal: int = 0) -> run_v2.TaskAttemptResult:
    status = status_pb2.Status(code=code, message=message)
    return run_v2.TaskAttemptResult(status=status, exit_code=exit_code, term_signal=term_signal)


_CANCELLED = _ended(code_pb2.CANCELLED, "Cancelled by user.")
_STRUCK = {
    "killed": _ended(code_pb2.INTERNAL, "Internal error."),
    "out_of_memory": _ended(code_pb2.ABORTED, "The configured memory limit was reached."),
}
"""Results by kind of `TaskFault`. The exit code is 0, as users of the service have reported."""


def _signal_group(process: asyncio.subprocess.Process, signum: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signum)


def _kill_group(process: asyncio.subprocess.Process) -> None:
    _signal_group(process, signal.SIGKILL)
