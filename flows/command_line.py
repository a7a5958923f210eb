"""Run a flow as a command: flags from its parameter model, one line for a refusal, clean-up after a signal."""

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
    """Parse flags, run the flow, print its result; return the exit code: 0, 1 failed, 2 refused, 130 interrupted."""
    try:
        parameters = CliApp.run(model, cli_args=None if arguments is None else list(arguments))
        now = datetime.now(UTC)
        check(parameters.spec(now), parameters.policy, now)  # before Prefect starts, which takes seconds
        _clean_up_on_sigterm()
        _start_server()
        summary = flow(parameters)
    except ValidationError as error:
        first = error.errors()[0]
        return _print_error(
            f"refused: {'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r}", _REFUSED
        )
    except RefusedError as error:
        return _print_error(f"refused: {error}", _REFUSED)
    except FanfoldError as error:
        return _print_error(str(error), _FAILED)
    except KeyboardInterrupt:
        return _print_error("interrupted; run the same command again to resume", _INTERRUPTED)
    for name in CampaignSummary.__dataclass_fields__:
        sys.stdout.write(f"{name}: {getattr(summary, name)}\n")
    return 0


def _print_error(line: str, code: int) -> int:
    sys.stderr.write(f"{line}\n")
    return code


def _clean_up_on_sigterm() -> None:
    """Let SIGTERM raise SystemExit; by default it would leave Prefect's temporary server running for ever."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _start_server() -> None:
    """Start Prefect's temporary server if one is needed, so that it ignores Ctrl-C: the flow needs it to clean up."""
    if determine_server_type() is ServerType.EPHEMERAL:
        from prefect.server.api.server import SubprocessASGIServer

        with _blocked(signal.SIGINT):
            SubprocessASGIServer().start()


@contextmanager
def _blocked(signum: signal.Signals) -> Iterator[None]:
    """Block a signal in this thread meanwhile, and permanently in processes that the thread starts meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signum})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
