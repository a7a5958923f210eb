"""Scripted faults of calls and of tasks."""

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault of one call that matches; latency comes first."""

    method: str = ""
    """A regular expression that is searched in the method's name, such as `CreateJob`; "" matches any."""
    after_calls: int = 0
    """Number of matching calls that succeed before this fault."""
    latency_s: float = 0.0
    status: int = 0
    """The call is answered with this HTTP status, or its gRPC equivalent, and does nothing; 0 carries the call out."""
    message: str = "a scripted fault"
    is_in_operation: bool = False
    """Whether the status is that of the long-running operation instead of the call."""
    reply_is_lost: bool = False
    """The call is carried out, then the connection breaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFault:
    """A fault of one task attempt that matches, some time after its process began.

    `killed`: the infrastructure fails. `crashed`: the process is killed by SIGKILL. `out_of_memory`: the same, and the
    service reports the memory limit. `maintenance`: the instance moves, so the process gets SIGTSTP and later SIGCONT.
    """

    kind: Literal["killed", "crashed", "out_of_memory", "maintenance"]
    index: int | None = None
    """The index of the task; None matches any."""
    after_s: float = 0.0
    pause_s: float = 0.2
    """Seconds between SIGTSTP and SIGCONT of a maintenance; 10 s at the real service."""


class Script:
    """The faults that have not happened yet; tests may change both lists at any time."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.task_faults: list[TaskFault] = []
        self._calls: dict[int, int] = {}

    def take(self, method: str) -> Fault:
        """Remove and return the first fault that matches and is due; an empty fault if there is none."""
        for fault in list(self.faults):
            if not re.search(fault.method, method):
                continue
            seen = self._calls.get(id(fault), 0)
            self._calls[id(fault)] = seen + 1
            if seen >= fault.after_calls:
                self.faults.remove(fault)
                del self._calls[id(fault)]
                return fault
        return Fault()

    def take_for_task(self, index: int) -> TaskFault | None:
        for fault in list(self.task_faults):
            if fault.index in (None, index):
                self.task_faults.remove(fault)
                return fault
        return None
