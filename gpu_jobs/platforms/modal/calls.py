"""How function calls end, and what that says of a GPU job. Pure."""

import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modal import exception

from gpu_jobs.jobs.failures import Failure, failure_of_exit, gravest
from gpu_jobs.jobs.orders import Observation, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnd:
    """How the GPU worker of one call ended."""

    phase: Phase
    reason: str = ""
    detail: str = ""
    failure: Failure | None = None


def end_of_value(value: Any) -> CallEnd:
    """How a call ended that returned a value, which is a `worker.Envelope`."""
    code, log = value["exit_code"], value["log"]
    if code == 0:
        return CallEnd(phase=Phase.SUCCEEDED, detail=log)
    reason = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return CallEnd(phase=Phase.FAILED, reason=reason, detail=log, failure=failure_of_exit(code))


def end_of_error(error: BaseException) -> CallEnd:
    """How a call ended for which Modal's client raised one of `ENDS`, or an error of the container's code."""
    detail = str(error) or type(error).__name__
    for kind, (phase, reason, failure) in _MEANINGS.items():
        if isinstance(error, kind):
            return CallEnd(phase=phase, reason=reason, detail=detail, failure=failure)
    reason = f"the container's code failed: {type(error).__name__}"
    failure = Failure.IMAGE if isinstance(error, ImportError) else Failure.USER_CODE
    return CallEnd(phase=Phase.FAILED, reason=reason, detail=detail, failure=failure)


_MEANINGS: dict[type[Exception], tuple[Phase, str, Failure | None]] = {
    exception.OutputExpiredError: (Phase.GONE, "its result has expired", None),
    exception.NotFoundError: (Phase.GONE, "not to be found on its platform", None),
    exception.FunctionTimeoutError: (Phase.FAILED, "timed out", Failure.TIMEOUT),
    exception.InternalFailure: (Phase.FAILED, "its containers died again and again", None),
    exception.RemoteError: (Phase.STOPPED, "stopped", None),
    exception.ExecutionError: (Phase.FAILED, "its result cannot be read", None),
}
ENDS = tuple(_MEANINGS)
"""Modal's errors that say how a call ended; all others mean that Modal could not be asked."""


def observation(ends: Sequence[CallEnd | None], *, num_started: int) -> Observation:
    """The state of a GPU job by the ends of its calls; None stands for a call that is not over.

    A call that waits for a machine counts as alive, or others would be ordered in its place.
    """
    over = [end for end in ends if end is not None]
    if alive := len(ends) - len(over):
        if not num_started and not over:
            return Observation(phase=Phase.STARTING)
        return Observation(phase=Phase.RUNNING, workers_alive=alive)
    if not over:
        return Observation(phase=Phase.GONE, reason="not to be found on its platform")
    detail = "\n".join(end.detail for end in over if end.detail)
    for phase in (Phase.FAILED, Phase.GONE, Phase.STOPPED, Phase.SUCCEEDED):
        counts = Counter(end.reason for end in over if end.phase is phase)
        if counts:
            reasons = [f"{reason} ({count}x)" if count > 1 else reason for reason, count in counts.items() if reason]
            failure = gravest(end.failure for end in over if end.phase is phase)
            return Observation(phase=phase, reason=", ".join(reasons), detail=detail, failure=failure)
    raise AssertionError(over)
