"""Files behind `https://` and `http://`: what identifies their content, and their bytes."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

from gpu_jobs.errors import ItemError, StoreUnavailableError

_TIMEOUT_S = 30
_HEADERS = {"User-Agent": "fanfold", "Accept-Encoding": "identity"}
"""A file is stored as its bytes are, so that its size is the announced one."""
_GONE = (404, 410)
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT_S = 30.0
_NO_ANSWER = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError)


def mark(uri: str) -> str:
    """Return a text that changes when the file's content changes.

    A server that refuses HEAD, as those of signed addresses do, is asked with GET, and the body is not read.

    Raises:
        FileNotFoundError: the server says that there is no such file, or `uri` is no address.
        ItemError: the server refuses, or its answer breaks off.
        StoreUnavailableError: no server answers.
    """
    with _explained(uri):
        try:
            return RETRY(_mark, "HEAD", uri)
        except httpx.HTTPStatusError as error:
            if error.response.status_code in (*_GONE, *_PASSING):
                raise
        return RETRY(_mark, "GET", uri)


def download(uri: str, path: Path, max_bytes: int) -> None:
    """Write the file's bytes to `path`; raises the errors of `mark`, and `ItemError` for more than `max_bytes`."""
    with _explained(uri):
        RETRY(_download, uri, path, max_bytes)


def too_large(uri: str, max_bytes: int) -> ItemError:
    return ItemError(f"'{uri}' is larger than {max_bytes >> 30} GiB, the most that one input may have")


def _mark(method: str, uri: str) -> str:
    with _reply(method, uri) as reply:
        found = reply.headers
        return found.get("ETag") or f"{found.get('Content-Length', '')}-{found.get('Last-Modified', '')}"


def _download(uri: str, path: Path, max_bytes: int) -> None:
    with _reply("GET", uri) as reply, path.open("wb") as file:
        try:
            for piece in reply.iter_raw(1 << 20):
                if file.tell() + len(piece) > max_bytes:
                    raise too_large(uri, max_bytes)
                file.write(piece)
        except _NO_ANSWER as error:  # the server did answer, with less than it announced
            raise httpx.RemoteProtocolError(_words(error)) from error


@contextmanager
def _reply(method: str, uri: str) -> Iterator[httpx.Response]:
    """The answer to one request, its body not read yet; redirects are followed."""
    with httpx.stream(method, uri, headers=_HEADERS, timeout=_TIMEOUT_S, follow_redirects=True, verify=_tls()) as reply:
        reply.raise_for_status()
        yield reply


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _PASSING
    return isinstance(error, _NO_ANSWER)


def _wait_s(state: RetryCallState) -> float:
    """Half a second, then longer; as long as the server asks for, within reason."""
    wait_s: float = _BACKOFF(state)
    error = state.outcome.exception() if state.outcome else None
    asked = error.response.headers.get("Retry-After", "") if isinstance(error, httpx.HTTPStatusError) else ""
    return min(_LONGEST_WAIT_S, max(wait_s, float(asked) if asked.isdecimal() else 0.0))


_BACKOFF = wait_exponential(multiplier=0.5, max=8) + wait_random(0, 0.5)
RETRY = Retrying(retry=retry_if_exception(_may_pass), stop=stop_after_attempt(4), wait=_wait_s, reraise=True)
"""How often a failure that may pass is tried again: a busy server, a limit of requests, a broken transfer."""


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn errors of httpx into ours, with the address and the cause."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        reply = error.response
        if reply.status_code in _GONE:
            raise FileNotFoundError(f"'{uri}' does not exist") from error
        asked = reply.request.method
        raise ItemError(f"'{uri}' answered {reply.status_code} {reply.reason_phrase} to {asked}") from error
    except httpx.RemoteProtocolError as error:
        raise ItemError(f"'{uri}' broke off: {_words(error)}") from error
    except _NO_ANSWER as error:
        raise StoreUnavailableError(f"'{uri}' did not answer: {_words(error)}") from error
    except httpx.InvalidURL as error:
        raise FileNotFoundError(f"'{uri}' is not a valid address: {_words(error)}") from error
    except httpx.HTTPError as error:
        raise ItemError(f"'{uri}' cannot be read: {_words(error)}") from error


def _words(error: Exception) -> str:
    """The error's message; some of httpx have none."""
    return str(error) or type(error).__name__


@cache
def _tls() -> ssl.SSLContext:
    """Trusts what this machine trusts. It takes a tenth of a second to make."""
    return ssl.create_default_context()
