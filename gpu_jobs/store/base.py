"""The one interface between Fanfold and object storage: create once, read, list."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from gpu_jobs.errors import StoreError

Summary = Mapping[str, str]
NO_SUMMARY: Summary = MappingProxyType({})
MAX_SUMMARY_BYTES = 2048


class Entry(NamedTuple):
    """One object as a listing shows it. A tuple, since some listings have hundreds of thousands."""

    key: str
    size_bytes: int
    """Bytes of the body, without the summary."""
    stored_at: float
    """Seconds since the epoch by the store's own clock; compare only with other stamps of one store."""
    summary: Summary = NO_SUMMARY


class Store(Protocol):
    """Objects under one prefix. A reader sees all of a write or nothing of it.

    Keys are relative, `/`-separated, lower case, and sort by their UTF-8 bytes. A listing shows every write that
    ended before the listing began. Every method raises `StoreUnavailableError` if the store does not answer within the
    store's own bounded retries and `StoreError` if it cannot be used at all.
    """

    @property
    def uri(self) -> str:
        """The URI of this store, in the form that `open_store` takes."""

    def create(self, key: str, body: bytes, summary: Summary = NO_SUMMARY) -> bool:
        """Write `key` if it is absent; True when the stored bytes are ours.

        So a call whose reply was lost can be repeated. Callers that race must write different bodies: put an id in.
        `list` returns the `summary`, at most 2 KiB of ASCII; it has no influence on which caller wins.
        """

    def put(self, key: str, body: bytes, summary: Summary = NO_SUMMARY) -> float:
        """Write or overwrite `key`, which only its one owner may do; return its `stored_at`."""

    def get(self, key: str) -> bytes | None:
        """Return the body, or None if there is no such object."""

    def list(self, prefix: str, after: str = "") -> Iterator[Entry]:
        """Entries whose key starts with `prefix` and is greater than `after`, in key order, fetched lazily."""

    def folders(self, prefix: str = "") -> Iterator[str]:
        """All keys that start with `prefix`, each cut at the next `/`; every name once, in key order.

        This lists that level alone, however much is below it. A local store also names empty folders.
        """

    def upload(self, key: str, path: Path) -> bool:
        """Like `create`, with a file as the body; it may be larger than memory."""

    def download(self, key: str, path: Path) -> None:
        """Write the object to `path`: first under a temporary name, then renamed. Its folder is made.

        Raises `StoreError` if the object is absent.
        """

    def delete(self, key: str) -> None:
        """Remove the object; an absent object is no error."""


def encode_summary(summary: Summary) -> bytes:
    """The summary as one line of JSON. Raises `StoreError` if it is longer than `MAX_SUMMARY_BYTES`."""
    line = json.dumps(dict(summary), separators=(",", ":")).encode()
    if len(line) > MAX_SUMMARY_BYTES:
        raise StoreError(f"a summary of {len(line)} bytes is too long; the limit is {MAX_SUMMARY_BYTES}")
    return line
