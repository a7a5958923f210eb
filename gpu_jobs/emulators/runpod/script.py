"""What goes wrong, and when."""

import re
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Befalls the next request that it fits."""

    method: str = ""
    """As `POST`; "" fits any."""
    path: str = ""
    """A regular expression that must be found in the path."""
    status: int = 0
    """Answered instead of carrying the request out; 0: none."""
    detail: str = "a scripted fault"
    html: str = ""
    """The answer's body, as of a proxy before RunPod; "" for RunPod's own form."""
    retry_after: str = ""
    request_is_lost: bool = False
    """Dropped before it is carried out."""
    reply_is_lost: bool = False
    """Carried out, then dropped."""
    is_doubled: bool = False
    """Carried out twice, as by a proxy that repeats; answered once."""
    latency_s: float = 0.0


@dataclass(slots=True)
class Script:
    faults: list[Fault] = field(default_factory=list)

    def take(self, method: str, path: str) -> Fault:
        """The first that fits, used up; else none."""
        for fault in self.faults:
            if fault.method in ("", method) and re.search(fault.path, path):
                self.faults.remove(fault)
                return fault
        return Fault()
