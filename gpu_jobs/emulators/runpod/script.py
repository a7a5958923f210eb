"""Scripted faults of requests."""

import re
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault of the next request that matches."""

    method: str = ""
    """The HTTP method, such as `POST`; "" matches any."""
    path: str = ""
    """A regular expression that is searched in the path."""
    status: int = 0
    """The request is answered with this status and not carried out; 0 means no such answer."""
    detail: str = "a scripted fault"
    html: str = ""
    """The body of the answer, as from a proxy in front of RunPod; with "" the answer has RunPod's own form."""
    retry_after: str = ""
    request_is_lost: bool = False
    """The connection is dropped before the request is carried out."""
    reply_is_lost: bool = False
    """The request is carried out, then the connection is dropped."""
    is_doubled: bool = False
    """The request is carried out twice, as by a proxy that repeats it, and answered once."""
    latency_s: float = 0.0


@dataclass(slots=True)
class Script:
    faults: list[Fault] = field(default_factory=list)

    def take(self, method: str, path: str) -> Fault:
        """Remove and return the first fault that matches; an empty fault if there is none."""
        for fault in self.faults:
            if fault.method in ("", method) and re.search(fault.path, path):
                self.faults.remove(fault)
                return fault
        return Fault()
