"""A store in a local folder.

`create` writes a temporary file and hard-links it to its name: the link fails if the name exists, and no reader ever
sees half an object, even if the writing process is killed. With `fsync` the same holds after a power failure.

A summary is stored as one more line of JSON at the end of the file, so that any tool can still read the file.
"""

import itertools
import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from gpu_jobs.errors import StoreError
from gpu_jobs.store.base import MAX_SUMMARY_BYTES, NO_SUMMARY, Entry, Summary, encode_summary

_TEMP = ".tmp"
_MARK = b'\n{"fanfold_summary":'
_END = b"}}\n"
_TAIL_BYTES = 2 * MAX_SUMMARY_BYTES
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_T = TypeVar("_T")


class LocalStore:
    """Implements `Store` in the folder `root`; the first write makes the folder."""

    def __init__(self, root: Path, *, fsync: bool = False) -> None:
        self._base = str(root.absolute())
        self._fsync = fsync
        self._temp_prefix = f"{self._base}/{_TEMP}/{os.urandom(6).hex()}"
        self._serial = itertools.count()

    @property
    def uri(self) -> str:
        return self._base

    def create(self, key: str, body: bytes, summary: Summary = NO_SUMMARY) -> bool:
        with self._errors(key):
            return self._link(self._write_temp(_encode(body, summary)), key) or self.get(key) == body

    def put(self, key: str, body: bytes, summary: Summary = NO_SUMMARY) -> float:
        with self._errors(key):
            temp = self._write_temp(_encode(body, summary))
            stored_at = os.stat(temp).st_mtime
            path = self._path(key)
            _in_folder(path, lambda: os.replace(temp, path))
            self._sync_folder(path)
            return stored_at

    def get(self, key: str) -> bytes | None:
        with self._errors(key):
            try:
                with open(self._path(key), "rb") as file:
                    stored = file.read()
            except _ABSENT:
                return None
            return stored[: _tail(stored).body_bytes]

    def list(self, prefix: str, after: str = "") -> Iterator[Entry]:
        with self._errors(prefix):
            base = self._base
            keys = sorted(_walk(base, prefix))
            for key in keys[bisect_right(keys, after) :]:  # written out, since a folder may hold 100,000 objects
                try:
                    descriptor = os.open(f"{base}/{key}", os.O_RDONLY)
                except _ABSENT:
                    continue  # deleted since the folder was read
                try:
                    status = os.fstat(descriptor)
                    size = status.st_size
                    end = os.pread(descriptor, _TAIL_BYTES, size - _TAIL_BYTES if size > _TAIL_BYTES else 0)
                finally:
                    os.close(descriptor)
                if end.endswith(_END):
                    tail = _tail(end)
                    yield Entry(key, size - len(end) + tail.body_bytes, status.st_mtime, tail.summary)
                else:
                    yield Entry(key, size, status.st_mtime, NO_SUMMARY)

    def folders(self, prefix: str = "") -> Iterator[str]:
        with self._errors(prefix):
            found = [f"{key}/" for key, is_folder in _children(self._base, prefix) if is_folder]
        yield from (folder[:-1] for folder in sorted(found))

    def upload(self, key: str, path: Path) -> bool:
        with self._errors(key):
            return self._link(self._copy_temp(path), key) or _holds(self._path(key), path)

    def download(self, key: str, path: Path) -> None:
        with self._errors(key):
            path.parent.mkdir(parents=True, exist_ok=True)
            temp = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
            try:
                shutil.copyfile(self._path(key), temp)
                with open(temp, "r+b") as file:
                    file.truncate(_read_tail(file.fileno(), os.fstat(file.fileno()).st_size).body_bytes)
                temp.replace(path)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise StoreError(f"{self.uri}/{key} does not exist") from error
            finally:
                temp.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        with self._errors(key), suppress(*_ABSENT):
            os.unlink(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}"

    def _temp_path(self) -> str:
        return f"{self._temp_prefix}-{os.getpid()}-{next(self._serial)}"  # a forked process counts the same serials

    def _write_temp(self, stored: bytes) -> str:
        temp = self._temp_path()
        descriptor = _in_folder(temp, lambda: os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        try:
            left = memoryview(stored)
            while left:
                left = left[os.write(descriptor, left) :]
            if self._fsync:
                os.fsync(descriptor)
        except OSError:
            os.unlink(temp)
            raise
        finally:
            os.close(descriptor)
        return temp

    def _copy_temp(self, path: Path) -> str:
        """Like `_write_temp`, with the bytes of a file as the body."""
        temp = self._temp_path()
        try:
            _in_folder(temp, lambda: shutil.copyfile(path, temp))
            with open(temp, "r+b") as file:
                file.seek(-min(_TAIL_BYTES, os.stat(temp).st_size), os.SEEK_END)
                end = file.read()
                file.write(_encode(end, NO_SUMMARY)[len(end) :])
            if self._fsync:
                _sync(temp)
        except OSError:
            Path(temp).unlink(missing_ok=True)
            raise
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

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self.uri}/{key}: {error}") from error


class _Tail(NamedTuple):
    body_bytes: int
    summary: Summary


def _encode(body: bytes, summary: Summary) -> bytes:
    if not summary and _MARK not in body[-_TAIL_BYTES:]:
        return body
    return b"".join((body, _MARK, encode_summary(summary), b"}\n"))


def _tail(end: bytes) -> _Tail:
    """Split the last bytes of a file into body and summary."""
    at = end.rfind(_MARK, -_TAIL_BYTES) if end.endswith(_END) else -1
    if at < 0:
        return _Tail(len(end), NO_SUMMARY)
    return _Tail(at, json.loads(end[at + len(_MARK) : -2]))


def _read_tail(descriptor: int, size: int) -> _Tail:
    """Split a whole open file of so many bytes into body and summary."""
    end = os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    if not end.endswith(_END):
        return _Tail(size, NO_SUMMARY)
    tail = _tail(end)
    return _Tail(size - len(end) + tail.body_bytes, tail.summary)


def _walk(base: str, prefix: str) -> Iterator[str]:
    """Keys under `base` that start with `prefix`, in any order."""
    for key, is_folder in _children(base, prefix):
        if is_folder:
            yield from _walk(base, f"{key}/")
        else:
            yield key


def _children(base: str, prefix: str) -> Iterator[tuple[str, bool]]:
    """Children of one folder whose key starts with `prefix`, in any order: the key, and whether it is a folder."""
    folder, _, name_prefix = prefix.rpartition("/")
    try:
        found = os.scandir(f"{base}/{folder}")
    except (FileNotFoundError, NotADirectoryError):
        return
    with found:
        for child in found:
            name = child.name
            if name.startswith(name_prefix) and name != _TEMP:
                yield f"{folder}/{name}" if folder else name, child.is_dir(follow_symlinks=False)


def _in_folder(path: str, act: Callable[[], _T]) -> _T:
    """Call `act`; if the folder of `path` is missing, make the folder and call `act` again."""
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


def _holds(stored: str, path: Path) -> bool:
    """True if the body in the file `stored` equals the file `path`."""
    with open(stored, "rb") as one, path.open("rb") as other:
        left = _read_tail(one.fileno(), os.fstat(one.fileno()).st_size).body_bytes
        if left != os.fstat(other.fileno()).st_size:
            return False
        while block := other.read(1 << 20):
            if block != one.read(len(block)):
                return False
    return True
