"""A store in memory, and a clock that a test moves."""

import threading
import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gpu_jobs.errors import StoreError, StoreUnavailableError
from gpu_jobs.store.base import NO_SUMMARY, Entry, Summary, encode_summary

WriteFault = Callable[[int, str], bool]
"""Says whether a write fails, given its number (from 1, over the store's lifetime) and its key."""


class FakeClock:
    """A clock that only `pass_time` moves."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds


class _Stored(NamedTuple):
    body: bytes
    stored_at: float
    summary: Summary


def _never(_number: int, _key: str) -> bool:
    return False


class MemoryStore:
    """Implements `Store` for the threads of one process.

    Attributes:
        before: called with a method's name and the key before each call (`list`: before each page), outside the lock;
            it may use the store itself, so that a test decides what happens in between, and may raise.
        calls: how often each method was called; `list` counts pages, as a bucket bills them.
    """

    def __init__(
        self,
        name: str = "test",
        *,
        clock: Callable[[], float] = time.time,
        reply_lost: WriteFault = _never,
        request_lost: WriteFault = _never,
        page_size: int = 1000,
    ) -> None:
        """Writes that `reply_lost` selects happen and then raise; those that `request_lost` selects only raise."""
        self.uri = f"memory://{name}"
        self.before: Callable[[str, str], None] = lambda _method, _key: None
        self.calls: Counter[str] = Counter()
        self._clock = clock
        self._reply_lost = reply_lost
        self._request_lost = request_lost
        self._page_size = page_size
        self._lock = threading.Lock()
        self._objects: dict[str, _Stored] = {}
        self._keys: list[str] = []
        self._num_writes = 0

    def create(self, key: str, body: bytes, summary: Summary = NO_SUMMARY) -> bool:
        return self._write("create", key, body, summary).body == body

    def put(self, key: str, body: bytes, summary: Summary = NO_SUMMARY) -> float:
        return self._write("put", key, body, summary).stored_at

    def get(self, key: str) -> bytes | None:
        self._begin("get", key)
        with self._lock:
            found = self._objects.get(key)
        return None if found is None else found.body

    def list(self, prefix: str, after: str = "") -> Iterator[Entry]:
        while True:
            page = self._page(prefix, after)
            yield from page
            if len(page) < self._page_size:
                return
            after = page[-1].key

    def folders(self, prefix: str = "") -> Iterator[str]:
        self._begin("list", prefix)
        with self._lock:
            keys = [key for key in self._keys if key.startswith(prefix) and "/" in key[len(prefix) :]]
        yield from dict.fromkeys(key[: key.index("/", len(prefix))] for key in keys)

    def upload(self, key: str, path: Path) -> bool:
        body = path.read_bytes()
        return self._write("upload", key, body, NO_SUMMARY).body == body

    def download(self, key: str, path: Path) -> None:
        self._begin("download", key)
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise StoreError(f"{self.uri}/{key} does not exist")
        path.parent.mkdir(parents=True, exist_ok=True)
        temp = path.with_name(f".{path.name}.part")
        temp.write_bytes(found.body)
        temp.replace(path)

    def delete(self, key: str) -> None:
        self._begin("delete", key)
        with self._lock:
            if self._objects.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]

    def _begin(self, method: str, key: str) -> None:
        with self._lock:
            self.calls[method] += 1
        self.before(method, key)

    def _write(self, method: str, key: str, body: bytes, summary: Summary) -> _Stored:
        """Write, and return what is stored under `key` afterwards."""
        self._begin(method, key)
        encode_summary(summary)
        with self._lock:
            self._num_writes += 1
            number = self._num_writes
            if self._request_lost(number, key):
                raise StoreUnavailableError(f"{self.uri}/{key}: the request was lost")
            if key not in self._objects:
                insort(self._keys, key)
            if method == "put" or key not in self._objects:
                self._objects[key] = _Stored(bytes(body), self._clock(), dict(summary))
            if self._reply_lost(number, key):
                raise StoreUnavailableError(f"{self.uri}/{key}: the reply was lost")
            return self._objects[key]

    def _page(self, prefix: str, after: str) -> Sequence[Entry]:
        self._begin("list", prefix)
        page = []
        with self._lock:
            first = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
            for at in range(first, min(first + self._page_size, len(self._keys))):
                key = self._keys[at]
                if not key.startswith(prefix):
                    break
                body, stored_at, summary = self._objects[key]
                page.append(Entry(key=key, size_bytes=len(body), stored_at=stored_at, summary=summary))
        return page
