"""The containers of one function variant, and the inputs that wait for them."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modal_proto import api_pb2

from gpu_jobs.emulators.modal.records import FunctionRecord, Input, News
from gpu_jobs.emulators.modal.rpc import made

if TYPE_CHECKING:
    from gpu_jobs.emulators.modal.container import Container

_IDLE_S = 60.0
_MAX_CONTAINERS = 100
_MAX_BROKEN = 2
"""After this many containers in a row that never asked for work, waiting inputs fail."""
_Status = api_pb2.GenericResult


class Pool:
    """Starts containers while inputs wait and fewer than `max_containers` run; ends those that are idle too long."""

    def __init__(self, function: FunctionRecord, start: Callable[["Pool"], "Container"], max_losses: int) -> None:
        self.function = function
        self._start = start
        self._max_losses = max_losses
        self.queue: deque[Input] = deque()
        self.containers: set[Container] = set()
        self.news = News()
        self.is_stopped = False
        """Whether the app was stopped, so that no container starts."""
        self._num_broken = 0

    def definition(self) -> Any:
        return definition_of(self.function)

    @property
    def idle_s(self) -> float:
        """How long a container may be idle, in seconds."""
        return float(self.definition().task_idle_timeout_secs or _IDLE_S)

    @property
    def timeout_s(self) -> float:
        return float(self.definition().timeout_secs or 300)

    def put(self, one: Input, *, is_first: bool = False) -> None:
        if one.result is not None:
            return  # the input was cancelled while it waited for its retry
        one.container = None
        (self.queue.appendleft if is_first else self.queue.append)(one)
        self.news.notify()
        self.scale()

    def scale(self) -> None:
        if self.is_stopped:
            return
        definition = self.definition()
        usable = [each for each in self.containers if not each.is_retired]
        missing = len(self.queue) - sum(not each.held for each in usable)
        missing = max(missing, definition.warm_pool_size - len(usable))
        room = (definition.concurrency_limit or _MAX_CONTAINERS) - len(self.containers)
        for _ in range(min(missing, room)):
            self.containers.add(self._start(self))

    async def take(self, container: "Container") -> Input | None:
        """Return the next input for a container, or None when the container should end."""
        self._num_broken = 0
        container.note_ready()
        idle_since = time.monotonic()
        while not container.is_retired:
            if self.queue:
                one = self.queue.popleft()
                container.hold(one)
                return one
            is_spare = len(self.containers) > self.definition().warm_pool_size
            left_s = idle_since + self.idle_s - time.monotonic()
            if left_s <= 0 and is_spare:
                break
            await self.news.wait(left_s if is_spare else 1.0)
        container.is_retired = True
        return None

    def cancel(self, one: Input, *, must_terminate: bool) -> None:
        if one.result is not None:
            return
        one.is_cancelled = True
        if one.container is None:
            if one in self.queue:
                self.queue.remove(one)
            self.finish(one, _Status.GENERIC_STATUS_TERMINATED, "Function call was cancelled")
        else:
            one.container.cancel(one)
            if must_terminate:
                one.container.terminate()

    def settle(self, one: Input, result: Any, data_format: int = 0) -> None:
        """Handle a container's result of an input; exceptions and timeouts are retried as the retry policy says."""
        if one.timer is not None:
            one.timer.cancel()
        if one.result is not None:
            return
        if one.is_late and result.status == _Status.GENERIC_STATUS_TERMINATED:
            words = f"Task's current input hit its timeout of {self.timeout_s:g}s"
            result = api_pb2.GenericResult(status=_Status.GENERIC_STATUS_TIMEOUT, exception=words)
        may_retry = not one.is_cancelled and result.status in (
            _Status.GENERIC_STATUS_FAILURE,
            _Status.GENERIC_STATUS_TIMEOUT,
        )
        policy = self.definition().retry_policy
        if may_retry and one.num_retries < policy.retries:
            one.num_retries += 1
            one.is_late = False
            one.container = None
            asyncio.get_running_loop().call_later(policy.initial_delay_ms / 1000, self.put, one)
            return
        one.container = None
        one.result = made(
            api_pb2.FunctionGetOutputsItem,
            result=result,
            idx=one.index,
            input_id=one.id,
            data_format=data_format,
            output_created_at=time.time(),
        )
        one.call.news.notify()

    def finish(self, one: Input, status: "_Status.GenericStatus.ValueType", words: str) -> None:
        self.settle(one, api_pb2.GenericResult(status=status, exception=words))

    def lost(self, container: "Container") -> None:
        """A container is gone. Its exit code does not matter; the inputs that it still held do."""
        self.containers.discard(container)
        for one in list(container.held.values()):
            self._take_back(one, container)
        if container.line.ready_s is None and not container.is_retired:
            self._note_broken(container)
        if not container.is_closing:
            self.scale()

    def _take_back(self, one: Input, container: "Container") -> None:
        if one.timer is not None:
            one.timer.cancel()
        if one.is_cancelled:
            self.finish(one, _Status.GENERIC_STATUS_TERMINATED, "Function call was cancelled")
        elif one.is_late:
            self.finish(one, _Status.GENERIC_STATUS_TERMINATED, "")
        else:
            one.num_losses += not container.is_preempted
            if one.num_losses < self._max_losses:
                self.put(one, is_first=True)
            else:
                words = f"Task exited {one.num_losses} times before it returned a result"
                self.finish(one, _Status.GENERIC_STATUS_INTERNAL_FAILURE, words)

    def _note_broken(self, container: "Container") -> None:
        """Count a container that never asked for work: its code cannot be imported, or it died earlier."""
        self._num_broken += 1
        if self._num_broken < _MAX_BROKEN:
            return
        self._num_broken = 0
        result = container.task_result or api_pb2.GenericResult(
            status=_Status.GENERIC_STATUS_INTERNAL_FAILURE, exception="Task exited before it asked for work"
        )
        while self.queue:
            one = self.queue.popleft()
            one.num_retries = self.definition().retry_policy.retries
            self.settle(one, result)


def definition_of(function: FunctionRecord) -> Any:
    """Return what the containers run: the function's definition with the options of the variant."""
    definition = api_pb2.Function()
    definition.CopyFrom(function.definition)
    options = function.options
    if options is None:
        return definition
    definition.resources.MergeFrom(options.resources)  # the client sends them even if nothing changes
    if options.HasField("retry_policy"):
        definition.retry_policy.CopyFrom(options.retry_policy)
    for name in ("timeout_secs", "concurrency_limit", "task_idle_timeout_secs", "warm_pool_size"):
        if options.HasField(name):
            setattr(definition, name, getattr(options, name))
    if options.replace_secret_ids:
        del definition.secret_ids[:]
    definition.secret_ids.extend(options.secret_ids)
    return definition
