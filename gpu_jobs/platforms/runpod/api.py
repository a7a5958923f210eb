"""RunPod's REST API, version 2: one account, its errors turned into ours, and one shared listing.

An account may make 60 calls a minute. So all campaigns of this process share one listing, pods and endpoints are never
read one by one, and after a 429 no call is made until `Retry-After` is over.
"""

import ipaddress
import ssl
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode, urlsplit

import httpx

from gpu_jobs.durations import duration
from gpu_jobs.errors import (
    BalanceError,
    NoCapacityError,
    OutcomeUnknownError,
    PlatformError,
    QuotaError,
    RefusedError,
    RejectedError,
)
from gpu_jobs.platforms.base import is_about_balance, is_about_quota, require_emulator
from gpu_jobs.platforms.runpod.replies import Page, named, read
from gpu_jobs.platforms.runpod.settings import RunPodSettings

DEADLINE_S = 30.0
"""Seconds that one call to RunPod may take."""
_API = "https://api.runpod.io"
_QUEUE = "https://api.runpod.ai"
_PATIENCE_S = 10.0
"""Seconds without calls after a 429 that has no usable `Retry-After`."""
_USER_AGENT = "fanfold"
"""Without a name of its own, a client was refused by the proxy in front of RunPod (Cloudflare's 1010)."""
_KEYS = "https://console.runpod.io/user/settings"

Kind = Literal["pods", "serverless"]
"""The path of each listing."""


class Listing(NamedTuple):
    """All named pods or endpoints of an account; `asked_at` is a time of our monotonic clock."""

    asked_at: float
    found: Sequence[Mapping[str, Any]]


class AbsentError(RejectedError):
    """The named pod or endpoint does not exist."""


class Account:
    """RunPod's API as one API key may use it. Raises only errors of `gpu_jobs.errors`."""

    def __init__(self, api_url: str, queue_url: str, key: str, *, deadline_s: float = DEADLINE_S) -> None:
        self.api_url = api_url
        self._queue_url = queue_url
        self._headers = {"Authorization": f"Bearer {key}", "User-Agent": _USER_AGENT}
        self._deadline_s = deadline_s
        self._closed_until = 0.0
        self._listed: dict[Kind, Listing] = {}

    async def listing(self, kind: Kind, *, max_age_s: float = 0.0) -> Listing:
        """All pods or endpoints of the account, read at most `max_age_s` ago."""
        listed = self._listed.get(kind)
        if listed is not None and time.monotonic() - listed.asked_at < max_age_s:
            return listed
        asked_at, cursor = time.monotonic(), ""
        found: list[dict[str, Any]] = []
        seen: set[str] = set()
        while True:
            query = f"?{urlencode({'cursor': cursor})}" if cursor else ""
            page = read(Page, await self.call("GET", f"/v2/{kind}{query}"), f"list of {kind}")
            found += named(page.rows)
            cursor = page.pagination.next_cursor or "" if page.pagination and page.pagination.has_next_page else ""
            if not cursor:
                listed = self._listed[kind] = Listing(asked_at, found)
                return listed
            if cursor in seen:
                raise OutcomeUnknownError(f"RunPod's list of {kind} has no end: it names the same page again")
            seen.add(cursor)

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call the management API; every change makes the stored listings invalid."""
        if method != "GET":
            self._listed.clear()
        return await self._send(method, f"{self.api_url}{path}", body)

    async def ask_queue(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call the queue of a serverless endpoint; `path` begins with the endpoint's id."""
        return await self._send(method, f"{self._queue_url}/v2/{path}", body)

    async def _send(self, method: str, url: str, body: Mapping[str, Any] | None) -> Any:
        if (left_s := self._closed_until - time.monotonic()) > 0:
            raise QuotaError(f"RunPod's rate limit: no more calls for {duration(left_s)}")
        try:
            async with httpx.AsyncClient(timeout=self._deadline_s, headers=self._headers, verify=_tls()) as client:
                reply = await client.request(method, url, json=body)
        except httpx.HTTPError as error:
            raise OutcomeUnknownError(f"RunPod does not answer {method} {url}: {type(error).__name__}") from error
        if reply.status_code == httpx.codes.TOO_MANY_REQUESTS:
            self._closed_until = time.monotonic() + _seconds(reply.headers.get("retry-after"))
        if reply.is_error:
            raise _ours(reply)
        try:
            return reply.json() if reply.content else None
        except ValueError as error:
            raise OutcomeUnknownError(f"RunPod answers {method} {url} with no JSON: {reply.text[:100]}") from error


@cache
def _tls() -> ssl.SSLContext:
    """Shared TLS context, since it takes a tenth of a second to make."""
    return httpx.create_ssl_context()


@cache
def _shared(api_url: str, queue_url: str, key: str, deadline_s: float) -> Account:
    return Account(api_url, queue_url, key, deadline_s=deadline_s)


def open_account(settings: RunPodSettings, *, deadline_s: float = DEADLINE_S) -> Account:
    """The account that the settings name, shared by all adapters of this process.

    Raises:
        RefusedError: there is no key, or the emulator is not on this machine.
    """
    key = settings.api_key.get_secret_value()
    if not key:
        raise RefusedError("RUNPOD_API_KEY", f"is not set; make a key at {_KEYS}")
    require_emulator("FANFOLD_RUNPOD_EMULATOR", settings.emulator)
    if not settings.emulator:
        return _shared(_API, _QUEUE, key, deadline_s)
    _require_loopback(settings.emulator)
    return _shared(settings.emulator, f"{settings.emulator}/ai", key, deadline_s)


def _require_loopback(url: str) -> None:
    try:
        is_loopback = ipaddress.ip_address(urlsplit(url).hostname or "").is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise RefusedError("FANFOLD_RUNPOD_EMULATOR", f"'{url}' is not http://127.0.0.1:PORT")


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or ""))
    except ValueError:
        return _PATIENCE_S


def _ours(reply: httpx.Response) -> PlatformError:
    """Our error for an error reply. RunPod replies as RFC 9457 says; a proxy in between may reply with HTML."""
    message = _message(reply)
    is_client_error = reply.is_client_error and reply.status_code != httpx.codes.TOO_MANY_REQUESTS
    is_quota = reply.status_code == httpx.codes.TOO_MANY_REQUESTS or is_about_quota(message)
    if is_client_error and (reply.status_code == httpx.codes.PAYMENT_REQUIRED or is_about_balance(message)):
        return BalanceError(f"RunPod: the balance is used up; add credit, then run the campaign again ({message})")
    match reply.status_code:
        case 400 | 429:  # 400 is no capacity, a quota or a bad combination: RunPod has no code for each
            return (QuotaError if is_quota else NoCapacityError)(f"RunPod: {message}")
        case 401:
            return RejectedError(f"RunPod refuses the API key; make another at {_KEYS} ({message})")
        case 404:
            return AbsentError(f"RunPod: {message}")
        case status if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            return OutcomeUnknownError(f"RunPod fails with {status}: {message}")
    return RejectedError(f"RunPod: {message}")


def _message(reply: httpx.Response) -> str:
    try:
        body = reply.json()
        return "; ".join([f"{body['detail']} [{reply.status_code}]", *map(str, body.get("errors") or ())])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{reply.text.strip()[:200] or reply.reason_phrase} [{reply.status_code}]"
