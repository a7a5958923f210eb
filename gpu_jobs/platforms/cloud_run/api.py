"""Google's clients for Cloud Run, and their errors turned into ours."""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.cloud import run_v2
from google.cloud.run_v2.services.executions.transports import ExecutionsGrpcAsyncIOTransport
from google.cloud.run_v2.services.jobs.transports import JobsGrpcAsyncIOTransport
from google.cloud.run_v2.services.tasks.transports import TasksGrpcAsyncIOTransport
from google.longrunning import operations_pb2

from gpu_jobs.errors import BalanceError, OutcomeUnknownError, QuotaError, RefusedError, RejectedError
from gpu_jobs.platforms.base import is_about_quota, require_emulator

_LOGIN = "run `gcloud auth application-default login`, or give a service account"


class InactiveError(RejectedError):
    """The named resource does not exist, or is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    jobs: run_v2.JobsAsyncClient
    executions: run_v2.ExecutionsAsyncClient
    tasks: run_v2.TasksAsyncClient


def open_clients(emulator: str) -> Clients:
    """Clients of the service, or of an emulator on this machine: its connection has no TLS."""
    require_emulator("FANFOLD_CLOUD_RUN_EMULATOR", emulator)
    if not emulator:
        try:
            return Clients(
                jobs=run_v2.JobsAsyncClient(),
                executions=run_v2.ExecutionsAsyncClient(),
                tasks=run_v2.TasksAsyncClient(),
            )
        except GoogleAuthError as error:
            raise RejectedError(f"there are no Google credentials: {_LOGIN} ({error})") from error
    _require_loopback(emulator)
    channel = grpc.aio.insecure_channel(emulator)
    return Clients(
        jobs=run_v2.JobsAsyncClient(transport=JobsGrpcAsyncIOTransport(channel=channel)),
        executions=run_v2.ExecutionsAsyncClient(transport=ExecutionsGrpcAsyncIOTransport(channel=channel)),
        tasks=run_v2.TasksAsyncClient(transport=TasksGrpcAsyncIOTransport(channel=channel)),
    )


def _require_loopback(address: str) -> None:
    try:
        is_loopback = ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise RefusedError("FANFOLD_CLOUD_RUN_EMULATOR", f"'{address}' is not 127.0.0.1:PORT")


@contextmanager
def translate(permission: str, place: str) -> Iterator[None]:
    """Turn errors of Google's clients into ours; only this does. `permission` is what the call needs."""
    try:
        yield
    except (exceptions.GoogleAPICallError, exceptions.RetryError, TimeoutError) as error:
        raise _ours(_with_class(error), permission, place) from error
    except GoogleAuthError as error:
        raise RejectedError(f"Google refuses the credentials: {_LOGIN} ({error})") from error


def _with_class(error: Exception) -> Exception:
    """The class of error that a failed long-running operation's code stands for; Google gives only the code."""
    operation = getattr(error, "response", None)
    if isinstance(operation, operations_pb2.Operation) and operation.error.code:
        error = exceptions.from_grpc_status(operation.error.code, operation.error.message)
    return error


def _ours(error: Exception, permission: str, place: str) -> Exception:
    text = getattr(error, "message", "") or str(error) or type(error).__name__
    match error:
        case exceptions.Unauthorized():
            return RejectedError(f"Google refuses the credentials: {_LOGIN} ({text})")
        case exceptions.Forbidden():  # its message may speak of a "quota project"
            kind = BalanceError if error.reason == "BILLING_DISABLED" else RejectedError
            return kind(
                f"{place}: permission {permission} is missing, or there is no such project, or its Cloud Run API or "
                f"billing is off; correct FANFOLD_CLOUD_RUN_PROJECT or grant roles/run.developer ({text})"
            )
        case exceptions.ClientError() if isinstance(error, exceptions.TooManyRequests) or is_about_quota(text):
            return QuotaError(f"{place}: {text}; ask for more quota, or use another region or GPU type")
        case exceptions.NotFound() | exceptions.FailedPrecondition():
            return InactiveError(f"{place}: {text}")
        case exceptions.ClientError() if not isinstance(error, exceptions.Conflict | exceptions.Cancelled):
            return RejectedError(f"{place}: {text}")
    # also a conflict: the name is taken, perhaps by our own request whose reply was lost
    return OutcomeUnknownError(f"{place}: no clear answer ({text})")
