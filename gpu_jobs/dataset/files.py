"""Single input files, local or remote: identify their content, and copy them onto this machine."""

import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from stat import S_IFDIR, S_IFIFO, S_IFMT, S_IFSOCK, S_ISREG
from types import MappingProxyType
from urllib.parse import unquote

import polars as pl
from filelock import FileLock

from gpu_jobs.dataset import web
from gpu_jobs.errors import ItemError, RefusedError, StoreError, StoreUnavailableError
from gpu_jobs.store import Entry, Store, open_store

MISSING = "missing"
UNREADABLE = "unreadable"
_REMOTE = ("gs://", "https://", "http://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_CELL = re.compile(r"(.+)#row=([0-9]+)&column=(.+)", re.DOTALL)
_KEEP_BYTES = 8 << 30
_MAX_BYTES = 64 << 30
"""The most that is downloaded for one input: some addresses never end."""
_LOOKUPS_AT_ONCE = 32
_MAX_SILENT = 3
_MAX_SUFFIX = 16
_IN_USE_S = 120.0
"""Copies used within this time are not evicted, since a reader may be about to open them."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of an input file without reading it."""

    fingerprint: str
    """Changes when the file's content changes; `MISSING` or `UNREADABLE` if there is a problem."""
    problem: str = ""
    """Why the file cannot be read, with its address; "" if nothing is known against it."""


def is_remote(uri: str) -> bool:
    return uri.startswith(_REMOTE)


def has_scheme(uri: str) -> bool:
    return bool(_SCHEME.match(uri))


def local_path(uri: str) -> str:
    """Return the path that a `file://` address names; anything else stays as it is."""
    if not uri.startswith("file://"):
        return uri
    path = uri.removeprefix("file://")
    return unquote(path.removeprefix("localhost") if path.startswith("localhost/") else path)


def cell_uri(table: str, row: int, column: str) -> str:
    """Return the address of a file whose bytes are a value of a Parquet table."""
    return f"{table}#row={row}&column={column}"


def fingerprint(uri: str) -> str:
    """Return a text that changes when the content of `uri` changes; see `look_up`."""
    return look_up([uri])[0].fingerprint


def look_up(uris: Sequence[str]) -> list[Look]:
    """Look at each uri, remote ones in parallel; "" has the fingerprint "". No bad uri affects another.

    Raises:
        StoreError: this machine has no credentials for Google Cloud Storage.
        StoreUnavailableError: Google Cloud Storage does not answer.
    """
    files = [_file_of(uri) for uri in uris]
    remote = sorted({file for file in files if is_remote(file)})
    known: dict[str, Look] = {}
    stores, silent = _stores(remote), Counter[str]()
    if remote:
        with ThreadPoolExecutor(min(len(remote), _LOOKUPS_AT_ONCE)) as threads:
            known = dict(zip(remote, threads.map(lambda uri: _look_for_plan(uri, stores, silent), remote), strict=True))
    return [known[file] if file in known else _look(file) for file in files]


def list_prefix(uri: str) -> Iterator[tuple[str, str]]:
    """Yield (uri, fingerprint) of the object `uri` and of all objects in the folder `uri` of a bucket, in key order."""
    bucket, key = _split(uri)
    for entry in open_store(bucket).list(key):
        if not key or entry.key == key or entry.key.startswith(key if key.endswith("/") else f"{key}/"):
            yield f"{bucket}/{entry.key}", _entry_fingerprint(entry)


def local_copy(uri: str, cache: Path, *, expected: str = "", keep_bytes: int = _KEEP_BYTES) -> Path:
    """Return the path of an input file on this machine; a local file is used in place.

    A remote file is downloaded into `cache` once, for all threads and processes, under a name that includes its
    fingerprint; so is a file whose bytes are in a table. With `expected` (a fingerprint), a file that is already in
    the cache needs no request. The cache is trimmed to the most recently used `keep_bytes`.

    Raises:
        ItemError: the file is missing, denied, too large or broken, or its fingerprint is no longer `expected`.
        StoreUnavailableError: the server does not answer, or this machine cannot write the copy.
    """
    file = _file_of(uri)
    if not is_remote(uri) and file == uri:
        _check(uri, _look(file), expected)
        return Path(uri)
    target = _cached(uri, cache, expected or _look(file).fingerprint)
    if not target.exists():
        _check(uri, _look(file), expected)
        try:
            _download_once(uri, target)
        except ItemError:
            _check(uri, _look(file), expected)  # it may have changed meanwhile, which is the better reason
            raise
        _check(uri, _look(file), expected)
        _trim(cache, keep_bytes, spare=target)
    target.touch()
    return target


def _split(uri: str) -> tuple[str, str]:
    """Split `gs://bucket/a/b` into `gs://bucket` and `a/b`."""
    bucket, _, key = uri.removeprefix("gs://").partition("/")
    return f"gs://{bucket}", key


def _stores(uris: Sequence[str]) -> dict[str, Store]:
    """Open each bucket once, which takes a while."""
    buckets = {_split(uri)[0] for uri in uris if uri.startswith("gs://")}
    return {bucket: open_store(bucket) for bucket in buckets if bucket != "gs://"}


def _look_for_plan(uri: str, stores: Mapping[str, Store], silent: Counter[str]) -> Look:
    """Look at a remote file; a web server that does not answer is that file's problem.

    A server that has not answered for some files (counted in `silent`) is not asked for others: that takes minutes.
    """
    server = uri.split("/", 3)[2]
    if silent[server] >= _MAX_SILENT:
        return Look(UNREADABLE, f"'{uri}' was not asked for: '{server}' did not answer for {_MAX_SILENT} other files")
    try:
        return _look(uri, stores)
    except StoreUnavailableError as error:
        if uri.startswith("gs://"):
            raise
        silent[server] += 1
        return Look(UNREADABLE, str(error))


def _file_of(uri: str) -> str:
    """Return the table where `uri` names one of its values, else `uri`."""
    cell = _CELL.fullmatch(uri)
    return cell[1] if cell else uri


def _look(uri: str, stores: Mapping[str, Store] = MappingProxyType({})) -> Look:
    if not is_remote(uri):
        return _look_here(uri)
    try:
        return _look_into_bucket(uri, stores) if uri.startswith("gs://") else Look(web.mark(uri))
    except StoreUnavailableError:
        raise
    except FileNotFoundError as error:
        return Look(MISSING, str(error))
    except ItemError as error:
        return Look(UNREADABLE, str(error))
    except (StoreError, RefusedError) as error:
        return Look(UNREADABLE, f"'{uri}' cannot be read: {error}")


def _look_into_bucket(uri: str, stores: Mapping[str, Store]) -> Look:
    bucket, key = _split(uri)
    first = next((stores.get(bucket) or open_store(bucket)).list(key), None)
    if first is None or first.key != key:
        raise FileNotFoundError(f"'{uri}' does not exist")
    return Look(_entry_fingerprint(first))


def _look_here(path: str) -> Look:
    if not path:
        return Look("")
    if has_scheme(path):
        return Look(MISSING, f"'{path}' cannot be read: name a file on this machine, gs://, https:// or http://")
    try:
        found = os.stat(path)
    except OSError as error:
        is_absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        return Look(MISSING, f"'{path}' {'does not exist' if is_absent else f'cannot be read: {error.strerror}'}")
    except ValueError as error:
        return Look(UNREADABLE, f"{path!r} is not a file name: {error}")
    if not S_ISREG(found.st_mode):
        kinds = {S_IFDIR: "a folder", S_IFIFO: "a named pipe", S_IFSOCK: "a socket"}
        return Look(UNREADABLE, f"'{path}' is {kinds.get(S_IFMT(found.st_mode), 'a device')}, not a file")
    return Look(f"{found.st_size}-{found.st_mtime_ns}")


def _entry_fingerprint(entry: Entry) -> str:
    return f"{entry.size_bytes}-{entry.stored_at}"


def _check(uri: str, look: Look, expected: str) -> None:
    if look.problem:
        raise ItemError(look.problem)
    if expected and look.fingerprint != expected:
        raise ItemError(f"'{uri}' has changed since the dataset was split (was {expected}, is {look.fingerprint})")


def _cached(uri: str, cache: Path, mark: str) -> Path:
    suffix = PurePosixPath(uri.partition("?")[0].partition("#")[0]).suffix if is_remote(uri) else ""
    return cache / f"{_digest(uri)}-{_digest(mark)}{suffix[:_MAX_SUFFIX]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _download_once(uri: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.exists():
            return
        temp = target.with_name(f".{target.name}.part")
        try:
            _fill(uri, temp)
            temp.replace(target)
        except FileNotFoundError as error:
            raise ItemError(f"'{uri}' does not exist") from error
        except OSError as error:  # a full disk is no fault of the input
            raise StoreUnavailableError(f"'{uri}' cannot be copied to {target.parent}: {error}") from error
        finally:
            temp.unlink(missing_ok=True)


def _fill(uri: str, path: Path) -> None:
    """Write the bytes of a remote file, or of a table's value, to `path`."""
    if cell := _CELL.fullmatch(uri):
        path.write_bytes(_cell(uri, local_copy(cell[1], path.parent), int(cell[2]), cell[3]))
    elif uri.startswith("gs://"):
        bucket, key = _split(uri)
        try:
            store = open_store(bucket)
            entry = next(store.list(key), None)
            if entry and entry.size_bytes > _MAX_BYTES:
                raise web.too_large(uri, _MAX_BYTES)
            store.download(key, path)
        except StoreUnavailableError:
            raise
        except StoreError as error:
            raise ItemError(f"'{uri}' cannot be read: {error}") from error
    else:
        web.download(uri, path, _MAX_BYTES)


def _cell(uri: str, table: Path, row: int, column: str) -> bytes:
    """Read one value: bytes, or a struct with the field `bytes`."""
    try:
        (value,) = pl.scan_parquet(table, glob=False).select(column).slice(row, 1).collect()[column]
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise ItemError(f"'{uri}' cannot be read from its table: {error}") from error
    body = value["bytes"] if isinstance(value, dict) else value
    if not isinstance(body, bytes):
        raise ItemError(f"'{uri}' holds no bytes")
    return body


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
