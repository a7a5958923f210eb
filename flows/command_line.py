"""A flow as a command: flags from its parameter model, one line for a refusal, nothing left behind by a signal."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

from prefect.client.base import ServerType, determine_server_type
from pydantic import ValidationError
from pydantic_settings import CliApp

from flows.campaign import CampaignParameters, CampaignSummary
from gpu_jobs.campaign.campaign import check
from gpu_jobs.errors import FanfoldError, RefusedError

_FAILED, _REFUSED, _INTERRUPTED = 1, 2, 130
_Parameters = TypeVar("_Parameters", bound=CampaignParameters)


def main(
    flow: Callable[[_Parameters], CampaignSummary], model: type[_Parameters], arguments: Sequence[str] | None = None
) -> int:
    """Parse, run, print what came of it; return the exit code: 0, 1 failed, 2 refused, 130 interrupted."""
    try:
        parameters = CliApp.run(model, cli_args=None if arguments is None else list(arguments))
        now = datetime.now(UTC)
        check(parameters.spec(now), parameters.policy, now)  # before Prefect takes its seconds to start
        _end_in_order_on_sigterm()
        _start_server()
        summary = flow(parameters)
    except ValidationError as error:
        first = error.errors()[0]
        return _say(f"refused: {'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}", _REFUSED)
    except RefusedError as error:
        return _say(f"refused: {error}", _REFUSED)
    except FanfoldError as error:
        return _say(str(error), _FAILED)
    except KeyboardInterrupt:
        return _say("interrupted; the same command resumes", _INTERRUPTED)
    for name in CampaignSummary.__dataclass_fields__:
        sys.stdout.write(f"{name}: {getattr(summary, name)}\n")
    return 0


def _say(line: str, code: int) -> int:
    sys.stderr.write(f"{line}\n")
    return code


def _end_in_order_on_sigterm() -> None:
    """Let SIGTERM unwind the stack; the default would leave Prefect's temporary server running for ever."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _start_server() -> None:
    """Start Prefect's temporary server, if one is needed, deaf to Ctrl-C: the flow needs it to end in order."""
    if determine_server_type() is ServerType.EPHEMERAL:
        from prefect.server.api.server import SubprocessASGIServer

        with _blocked(signal.SIGINT):
            SubprocessASGIServer().start()


@contextmanager
def _blocked(signum: signal.Signals) -> Iterator[None]:
    """Block a signal in this thread, and for good in processes that it starts meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signum})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
