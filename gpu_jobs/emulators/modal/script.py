"""Scripted faults: what befalls the client's calls."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What befalls one call of the client that matches; latency comes first."""

    method: str
    """A regular expression for the whole name, such as `FunctionMap`."""
    status: str = "UNAVAILABLE"
    """Name of the gRPC status that is answered; empty: the call is only late."""
    message: str = "a scripted fault"
    reply_is_lost: bool = False
    """Done as asked before the status is answered."""
    latency_s: float = 0.0


class Script:
    """Faults not yet used up, in order; may be changed at any time. The client tries most calls four times."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def take(self, method: str) -> Fault | None:
        """The first fault that matches; taken off the script."""
        for fault in list(self.faults):
            if re.fullmatch(fault.method, method):
                self.faults.remove(fault)
                return fault
        return None
