"""A store in a local folder.

`create` writes a temporary file and hard-links it to its name: the link fails if the name exists, and no reader ever
sees half an object, whatever process dies when. With `fsync` the same holds for a power cut.

A summary is kept as one more JSON line at the end of the file, so that files stay readable with any tool.
"""

import itertools
import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from gpu_jobs.errors import StoreError
from gpu_jobs.store.base import NO_SUMMARY, Entry, Summary

_TEMP = ".tmp"
_MARK = b'\n{"fanfold_summary":'
_TAIL_BYTES = 4096
_T = TypeVar("_T")


class LocalStore:
    """Implements `Store` over the folder `root`, which is made by the first write."""

    def __init__(self, root: Path, *, fsync: bool = False) -> None:
        self._base = str(root.absolute())
        self._fsync = fsync
        self._temp_prefix = f"{self._base}/{_TEMP}/{os.urandom(6).hex()}"
        self._serial = itertools.count()

    @property
    def uri(self) -> str:
        return self._base

    def create(self, key: str, body: bytes, summary: Summary = NO_SUMMARY) -> bool:
        stored = _encode(body, summary)
        return self._link(self._write_temp(stored), key) or _read(self._path(key)) == stored

    def put(self, key: str, body: bytes, summary: Summary = NO_SUMMARY) -> float:
        temp = self._write_temp(_encode(body, summary))
        stored_at = os.stat(temp).st_mtime
        path = self._path(key)
        _in_folder(path, lambda: os.replace(temp, path))
        self._sync_folder(path)
        return stored_at

    def get(self, key: str) -> bytes | None:
        stored = _read(self._path(key))
        return None if stored is None else stored[: _tail(stored).body_bytes]

    def list(self, prefix: str, after: str = "") -> Iterator[Entry]:
        keys = sorted(_walk(self._base, prefix))
        for key in keys[bisect_right(keys, after) :]:
            try:
                descriptor = os.open(self._path(key), os.O_RDONLY)
            except FileNotFoundError:
                continue  # deleted since the folder was read
            try:
                stat = os.fstat(descriptor)
                end = os.pread(descriptor, _TAIL_BYTES, max(0, stat.st_size - _TAIL_BYTES))
            finally:
                os.close(descriptor)
            tail = _tail(end)
            size = stat.st_size - len(end) + tail.body_bytes
            yield Entry(key=key, size_bytes=size, stored_at=stat.st_mtime, summary=tail.summary)

    def upload(self, key: str, path: Path) -> bool:
        temp = self._temp_path()
        _in_folder(temp, lambda: shutil.copyfile(path, temp))
        if self._fsync:
            _sync(temp)
        return self._link(temp, key) or _same_bytes(path, Path(self._path(key)))

    def download(self, key: str, path: Path) -> None:
        temp = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
        try:
            shutil.copyfile(self._path(key), temp)
        except FileNotFoundError as error:
            raise StoreError(f"{self.uri}/{key} does not exist") from error
        temp.replace(path)

    def delete(self, key: str) -> None:
        Path(self._path(key)).unlink(missing_ok=True)

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}"

    def _temp_path(self) -> str:
        return f"{self._temp_prefix}-{next(self._serial)}"

    def _write_temp(self, stored: bytes) -> str:
        temp = self._temp_path()
        descriptor = _in_folder(temp, lambda: os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        try:
            left = memoryview(stored)
            while left:
                left = left[os.write(descriptor, left) :]
            if self._fsync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return temp

    def _link(self, temp: str, key: str) -> bool:
        path = self._path(key)
        try:
            _in_folder(path, lambda: os.link(temp, path))
        except FileExistsError:
            return False
        finally:
            os.unlink(temp)
        self._sync_folder(path)
        return True

    def _sync_folder(self, path: str) -> None:
        if self._fsync:
            _sync(os.path.dirname(path))


class _Tail(NamedTuple):
    body_bytes: int
    summary: Summary


def _encode(body: bytes, summary: Summary) -> bytes:
    if not summary and _MARK not in body[-_TAIL_BYTES:]:
        return body
    line = json.dumps(dict(summary), separators=(",", ":")).encode()
    if len(line) > _TAIL_BYTES // 2:
        raise StoreError(f"a summary of {len(line)} bytes is too long; the limit is {_TAIL_BYTES // 2}")
    return b"".join((body, _MARK, line, b"}\n"))


def _tail(end: bytes) -> _Tail:
    """Split the last bytes of a file into body and summary."""
    at = end.rfind(_MARK, -_TAIL_BYTES) if end.endswith(b"}}\n") else -1
    if at < 0:
        return _Tail(len(end), NO_SUMMARY)
    return _Tail(at, json.loads(end[at + len(_MARK) : -2]))


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _walk(base: str, prefix: str) -> Iterator[str]:
    """Keys under `base` that start with `prefix`, in no order."""
    folder, _, name_prefix = prefix.rpartition("/")
    try:
        found = os.scandir(f"{base}/{folder}")
    except (FileNotFoundError, NotADirectoryError):
        return
    with found:
        for child in found:
            if not child.name.startswith(name_prefix) or child.name == _TEMP:
                continue
            key = f"{folder}/{child.name}" if folder else child.name
            if child.is_dir(follow_symlinks=False):
                yield from _walk(base, f"{key}/")
            else:
                yield key


def _in_folder(path: str, act: Callable[[], _T]) -> _T:
    """Do `act`; if the folder of `path` is missing make it and do `act` again."""
    try:
        return act()
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return act()


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _same_bytes(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as a, other.open("rb") as b:
        while block := a.read(1 << 20):
            if block != b.read(1 << 20):
                return False
    return True
