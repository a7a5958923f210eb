"""Scripted faults: what befalls calls, and what befalls tasks."""

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What befalls one call that matches; latency comes first."""

    method: str = ""
    """A regular expression, searched in `CreateJob`, `GetExecution`, ...; empty: any."""
    after_calls: int = 0
    """So many matching calls go well before."""
    latency_s: float = 0.0
    status: int = 0
    """Answer with this HTTP status, or what it is in gRPC, without doing anything; 0: do as asked."""
    message: str = "a scripted fault"
    is_in_operation: bool = False
    """The status is that of the long-running operation, not of the call."""
    reply_is_lost: bool = False
    """Done as asked, then the connection seems to break."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFault:
    """What befalls one task attempt that matches, some time after its process began.

    `killed`: the infrastructure fails. `crashed`: the process is killed by SIGKILL. `out_of_memory`: the same, and the
    service names the memory limit. `maintenance`: the instance moves, SIGTSTP and later SIGCONT; nothing ends.
    """

    kind: Literal["killed", "crashed", "out_of_memory", "maintenance"]
    index: int | None = None
    """Of the task; None: any."""
    after_s: float = 0.0
    pause_s: float = 0.2
    """Of a maintenance: between SIGTSTP and SIGCONT; 10 s at the service."""


class Script:
    """Faults not yet used up; both lists may be changed at any time."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.task_faults: list[TaskFault] = []
        self._calls: dict[int, int] = {}

    def take(self, method: str) -> Fault:
        """The first fault that matches and whose turn has come; taken off the script."""
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
