"""Single input files, local or remote: identify their content, and copy them onto this machine."""

import hashlib
import os
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath

import httpx
from filelock import FileLock

from gpu_jobs.errors import ItemError, StoreError, StoreUnavailableError
from gpu_jobs.store import Entry, Store, open_store

_REMOTE = ("gs://", "https://", "http://")
_TIMEOUT_S = 30
_HEADERS = {"User-Agent": "fanfold", "Accept-Encoding": "identity"}
"""A file is stored as its bytes are, so that its size is the announced one."""
_GONE = (404, 410)
_DENIED = (400, 401, 403, 405, 451)
_KEEP_BYTES = 8 << 30
_LOOKUPS_AT_ONCE = 32
_IN_USE_S = 120.0
"""Copies used within this time are not evicted, since a reader may be about to open them."""


def is_remote(uri: str) -> bool:
    return uri.startswith(_REMOTE)


def fingerprint(uri: str) -> str:
    """Return a text that changes when the content of `uri` changes; "missing" if there is no such file.

    Raises:
        StoreError: access is denied.
        StoreUnavailableError: the server does not answer in time.
    """
    return fingerprints([uri])[0]


def fingerprints(uris: Sequence[str]) -> list[str]:
    """Return the fingerprint of each uri, "" for ""; remote ones are looked up in parallel."""
    stores = {bucket: open_store(bucket) for bucket in {_split(uri)[0] for uri in uris if uri.startswith("gs://")}}
    remote = sorted({uri for uri in uris if is_remote(uri)})
    if not remote:
        return [_local_fingerprint(uri) for uri in uris]
    with ThreadPoolExecutor(min(len(remote), _LOOKUPS_AT_ONCE)) as threads:
        marks = threads.map(lambda uri: _remote_fingerprint(uri, stores), remote)
        known = dict(zip(remote, marks, strict=True))
    return [known[uri] if uri in known else _local_fingerprint(uri) for uri in uris]


def list_prefix(uri: str) -> Iterator[tuple[str, str]]:
    """Yield (uri, fingerprint) of the object `uri` and of all objects in the folder `uri` of a bucket, in key order."""
    bucket, key = _split(uri)
    for entry in open_store(bucket).list(key):
        if not key or entry.key == key or entry.key.startswith(key if key.endswith("/") else f"{key}/"):
            yield f"{bucket}/{entry.key}", _entry_fingerprint(entry)


def local_copy(uri: str, cache: Path, *, expected: str = "", keep_bytes: int = _KEEP_BYTES) -> Path:
    """Return the path of an input file on this machine; a local file is used in place.

    A remote file is downloaded into `cache` once, for all threads and processes, under a name that includes its
    fingerprint. With `expected` (a fingerprint), a file that is already in the cache needs no request. The cache is
    trimmed to the most recently used `keep_bytes`.

    Raises:
        ItemError: the file is missing, or its fingerprint is no longer `expected`.
        StoreError: access is denied.
        StoreUnavailableError: the server does not answer, or the download was incomplete.
    """
    if is_remote(uri):
        target = _cached(uri, cache, expected or fingerprint(uri))
        if not target.exists():
            _check(uri, fingerprint(uri), expected)
            _download_once(uri, target)
            _check(uri, fingerprint(uri), expected)
            _trim(cache, keep_bytes, spare=target)
        target.touch()
        return target
    _check(uri, fingerprint(uri), expected)
    return Path(uri)


def _split(uri: str) -> tuple[str, str]:
    """Split `gs://bucket/a/b` into `gs://bucket` and `a/b`."""
    bucket, _, key = uri.removeprefix("gs://").partition("/")
    return f"gs://{bucket}", key


def _local_fingerprint(path: str) -> str:
    if not path:
        return ""
    try:
        stat = os.stat(path)
    except OSError:
        return "missing"
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _remote_fingerprint(uri: str, stores: Mapping[str, Store]) -> str:
    if not uri.startswith("gs://"):
        return _http_fingerprint(uri)
    bucket, key = _split(uri)
    first = next(stores[bucket].list(key), None)
    return _entry_fingerprint(first) if first and first.key == key else "missing"


def _entry_fingerprint(entry: Entry) -> str:
    return f"{entry.size_bytes}-{entry.stored_at}"


def _check(uri: str, found: str, expected: str) -> None:
    if found == "missing":
        raise ItemError(f"'{uri}' does not exist")
    if expected and found != expected:
        raise ItemError(f"'{uri}' has changed since the dataset was split (was {expected}, is {found})")


def _cached(uri: str, cache: Path, mark: str) -> Path:
    suffix = PurePosixPath(uri.partition("?")[0]).suffix
    return cache / f"{_digest(uri)}-{_digest(mark)}{suffix}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _download_once(uri: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.exists():
            return
        temp = target.with_name(f".{target.name}.part")
        try:
            if uri.startswith("gs://"):
                bucket, key = _split(uri)
                open_store(bucket).download(key, temp)
            else:
                _http_download(uri, temp)
            temp.replace(target)
        finally:
            temp.unlink(missing_ok=True)


def _trim(cache: Path, keep_bytes: int, spare: Path) -> None:
    """Delete the least recently used copies beyond `keep_bytes`; a reader that has one open is not affected."""
    stats = []
    for path in cache.iterdir():
        try:
            stats.append((path.stat(), path))
        except FileNotFoundError:  # another process has deleted it
            continue
    kept_bytes, now = 0, time.time()
    for stat, path in sorted(stats, key=lambda one: one[0].st_mtime, reverse=True):
        kept_bytes += stat.st_size
        if kept_bytes > keep_bytes and path != spare and now - stat.st_mtime > _IN_USE_S and path.suffix != ".lock":
            path.unlink(missing_ok=True)
            kept_bytes -= stat.st_size


def _http_fingerprint(uri: str) -> str:
    try:
        with _request(uri, "HEAD") as reply:
            return _mark(reply.headers)
    except FileNotFoundError:
        return "missing"


def _mark(headers: httpx.Headers) -> str:
    return headers.get("ETag") or f"{headers.get('Content-Length', '')}-{headers.get('Last-Modified', '')}"


def _http_download(uri: str, path: Path) -> None:
    try:
        with _request(uri, "GET") as reply:
            _write(reply, uri, path)
    except FileNotFoundError as error:
        raise ItemError(f"'{uri}' does not exist") from error


def _write(reply: httpx.Response, uri: str, path: Path) -> None:
    """Stream the reply's body into a file; fewer bytes than announced are an error of httpx."""
    with path.open("wb") as file:
        try:
            for piece in reply.iter_raw(1 << 20):
                file.write(piece)
        except (httpx.HTTPError, OSError) as error:
            raise StoreUnavailableError(f"'{uri}' broke off: {_words(error)}") from error


@contextmanager
def _request(uri: str, method: str) -> Iterator[httpx.Response]:
    """The reply to a request, its body not read yet; redirects are followed.

    Raises:
        FileNotFoundError: the server says that there is no such thing, or `uri` is no address.
        StoreError: access is denied. StoreUnavailableError: no answer, or an error of the server.
    """
    try:
        with httpx.stream(
            method, uri, headers=_HEADERS, timeout=_TIMEOUT_S, follow_redirects=True, verify=_tls()
        ) as reply:
            if reply.status_code in _GONE:
                raise FileNotFoundError(uri)
            if not reply.is_success:
                kind = StoreError if reply.status_code in _DENIED else StoreUnavailableError
                raise kind(f"'{uri}' answered {reply.status_code} {reply.reason_phrase} to {method}")
            yield reply
    except httpx.InvalidURL as error:
        raise FileNotFoundError(uri) from error
    except httpx.HTTPError as error:
        raise StoreUnavailableError(f"'{uri}' did not answer {method}: {_words(error)}") from error


def _words(error: Exception) -> str:
    """The error's message; some of httpx have none."""
    return str(error) or type(error).__name__


@cache
def _tls() -> ssl.SSLContext:
    """Trusts what this machine trusts. It takes a tenth of a second to make."""
    return ssl.create_default_context()
