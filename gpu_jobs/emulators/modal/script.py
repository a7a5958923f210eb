"""Scripted faults of the client's calls."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault of one matching call of the client; latency comes first."""

    method: str
    """A regular expression that must match the whole name of the method, such as `FunctionMap`."""
    status: str = "UNAVAILABLE"
    """The name of the gRPC status to answer with; with "" the call is only late."""
    message: str = "a scripted fault"
    reply_is_lost: bool = False
    """The call is carried out before the status is answered."""
    latency_s: float = 0.0


class Script:
    """The faults that have not happened yet, in order; tests may change it. A client tries most calls four times."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def take(self, method: str) -> Fault | None:
        """Remove and return the first fault that matches."""
        for fault in list(self.faults):
            if re.fullmatch(fault.method, method):
                self.faults.remove(fault)
                return fault
        return None
