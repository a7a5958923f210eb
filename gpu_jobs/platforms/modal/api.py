"""Modal's client, and its errors turned into ours."""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import modal
from modal import exception
from modal.config import config

from gpu_jobs.errors import BalanceError, OutcomeUnknownError, PlatformError, QuotaError, RefusedError, RejectedError
from gpu_jobs.platforms.base import require_emulator
from gpu_jobs.platforms.modal.settings import ModalSettings

_LOGIN = "run `modal token new`, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET"


class AbsentError(RejectedError):
    """The named object does not exist."""


async def open_client(settings: ModalSettings) -> modal.Client:
    """A client of Modal, or of an emulator if the settings name one.

    Raises:
        RefusedError: the settings name an emulator, but Modal's own variable leads elsewhere, perhaps to Modal.
        RejectedError: there is no token.
    """
    emulator = settings.emulator
    require_emulator("FANFOLD_MODAL_EMULATOR", emulator)
    if emulator:
        _require_loopback(emulator)
        if config["server_url"] != emulator:
            raise RefusedError("MODAL_SERVER_URL", f"must be {emulator}, as FANFOLD_MODAL_EMULATOR")
    with translate("opening Modal"):
        if not config["token_id"]:
            raise exception.AuthError("token missing")
        client: modal.Client = await modal.Client.from_credentials.aio(config["token_id"], config["token_secret"])
        return client


def _require_loopback(url: str) -> None:
    parts = urlsplit(url)
    try:
        is_loopback = parts.scheme == "http" and ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise RefusedError("FANFOLD_MODAL_EMULATOR", f"'{url}' is not http://127.0.0.1:PORT")


@contextmanager
def translate(what: str) -> Iterator[None]:
    """Turn errors of Modal's client into ours; only this does."""
    try:
        yield
    except (exception.Error, OSError, TimeoutError) as error:
        raise _ours(error, what) from error


def _ours(error: Exception, what: str) -> Exception:
    text = f"{what}: {str(error) or type(error).__name__}"
    if _SPENT in str(error):
        return BalanceError(f"Modal's spend limit is reached: raise the workspace's limit ({text})")
    for kinds, ours, words in _MEANINGS:
        if isinstance(error, kinds):
            return ours(f"{words} ({text})" if words else text)
    return RejectedError(text)


_SPENT = "spend limit reached"
"""Part of Modal's message 'workspace billing cycle spend limit reached', for which it has no code."""
_MEANINGS: tuple[tuple[type | tuple[type, ...], type[PlatformError], str], ...] = (
    (exception.AuthError, RejectedError, f"Modal refuses the token: {_LOGIN}"),
    (exception.PermissionDeniedError, RejectedError, "Modal's token may not do this; ask for a role in the workspace"),
    (exception.NotFoundError, AbsentError, ""),
    (exception.ResourceExhaustedError, QuotaError, ""),  # a rate limit, or too many calls in the queue
    (
        (
            exception.ServiceError,
            exception.InternalError,
            exception.ConflictError,
            exception.ConnectionError,
            exception.ClientClosed,
            OSError,
        ),
        OutcomeUnknownError,
        "",
    ),
)
"""The first entry that matches counts; an error that matches none is a mistake in our request."""
