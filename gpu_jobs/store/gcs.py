"""A store in a Google Cloud Storage bucket, through Google's own client.

The service guarantees that writes and listings are strongly consistent, that `if_generation_match=0` lets only one
writer create an object, and that a write is whole or absent. This module adds bounded retries, a check of who won when
a reply was lost, checksums from end to end, and errors that say what to do.

With `STORAGE_EMULATOR_HOST` in the environment it uses that server, without credentials.
"""

import base64
import mimetypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import requests
from google.api_core.exceptions import (
    Forbidden,
    GoogleAPICallError,
    NotFound,
    PreconditionFailed,
    RetryError,
    Unauthorized,
)
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter

from gpu_jobs.durations import duration
from gpu_jobs.errors import RefusedError, StoreError, StoreUnavailableError
from gpu_jobs.store.base import NO_SUMMARY, Entry, Summary, encode_summary

DEADLINE_S = 60.0
"""No new try begins later than this after the first; each page of a listing and block of a file counts alone."""
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
"""One try fails after this long without receiving a byte."""
RETRY = DEFAULT_RETRY.with_delay(initial=0.5, maximum=8.0, multiplier=2.0)
"""Retries timeouts, 408, 429, 5xx and broken connections, with jitter. This module has no other retries."""

PAGE_SIZE = 1000
BLOCK_BYTES = 32 << 20
MAX_CONNECTIONS = 64
"""If more threads than this use the store at once, some wait."""

_CREATE, _READ, _LIST, _DELETE = (f"storage.objects.{verb}" for verb in ("create", "get", "list", "delete"))
_PERMISSION = re.compile(r"storage\.\w+\.\w+")
_CREDENTIALS = "Google refuses the credentials: run `gcloud auth application-default login`, or use a service account"
_LISTED_FIELDS = "items(name,size,updated,metadata),nextPageToken"


class GcsStore:
    """Implements `Store` in `gs://bucket/prefix`; threads may share one object, forked processes may not.

    Raises `RefusedError` for another kind of URI and `StoreError` if there are no credentials.
    """

    def __init__(self, uri: str, *, deadline_s: float = DEADLINE_S) -> None:
        self._bucket_name, self._root = _parse(uri)
        self._deadline_s = deadline_s
        self._retry = RETRY.with_timeout(deadline_s)
        self._timeout = (CONNECT_TIMEOUT_S, min(READ_TIMEOUT_S, deadline_s))
        with self._errors("", _READ):
            self._client = _new_client()
        self._bucket = self._client.bucket(self._bucket_name)
        self._bucket_was_seen = False

    @property
    def uri(self) -> str:
        return f"gs://{self._bucket_name}/{self._root}".rstrip("/")

    def create(self, key: str, body: bytes, summary: Summary = NO_SUMMARY) -> bool:
        with self._errors(key, _CREATE):
            try:
                self._write(key, body, summary, if_generation_match=0)
            except PreconditionFailed:
                return self.get(key) == body  # a retry after a lost reply ends here too
        return True

    def put(self, key: str, body: bytes, summary: Summary = NO_SUMMARY) -> float:
        with self._errors(key, _DELETE):  # overwriting needs this permission too
            return _stored_at(self._write(key, body, summary))

    def get(self, key: str) -> bytes | None:
        with self._errors(key, _READ):
            try:
                return self._read(self._blob(key))
            except NotFound:
                self._require_bucket()
                return None

    def list(self, prefix: str, after: str = "") -> Iterator[Entry]:
        with self._errors(prefix, _LIST):
            for blob in self._listed(prefix, _LISTED_FIELDS, start_offset=self._root + after):
                key = blob.name.removeprefix(self._root)
                if key > after:  # the service starts at `after` itself
                    yield Entry(key, blob.size, _stored_at(blob), blob.metadata or NO_SUMMARY)

    def folders(self, prefix: str = "") -> Iterator[str]:
        with self._errors(prefix, _LIST):
            listed = self._listed(prefix, "prefixes,nextPageToken", delimiter="/")
            found = {folder for page in listed.pages for folder in page.prefixes}  # emulators repeat them on every page
        yield from (folder.removeprefix(self._root).removesuffix("/") for folder in sorted(found))

    def upload(self, key: str, path: Path) -> bool:
        with self._errors(key, _CREATE):
            try:
                self._blob(key).upload_from_filename(
                    path,
                    content_type=_content_type(key),
                    if_generation_match=0,
                    checksum="crc32c",
                    timeout=self._timeout,
                    retry=self._retry,
                )
            except PreconditionFailed:
                return self._holds(key, path)
            except (NotFound, ValueError) as error:
                # NotFound: no bucket, or the session of a finished upload. ValueError: the client cannot continue.
                if isinstance(error, NotFound) and self._holds(key, path):
                    return True
                raise StoreUnavailableError(f"{self._place(key)}: the upload was interrupted; call again") from error
        return True

    def download(self, key: str, path: Path) -> None:
        with self._errors(key, _READ):
            blob = self._find(key)
            if blob is None:
                raise StoreError(f"{self._place(key)} does not exist")
            path.parent.mkdir(parents=True, exist_ok=True)
            temp = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
            checksum = blob.crc32c  # every read replaces it by the checksum of what was read
            try:
                self._fetch(blob, temp)
                if _crc32c(temp) != checksum:
                    raise StoreError(f"{self._place(key)} arrived damaged: its checksum differs; download it again")
                temp.replace(path)
            finally:
                temp.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        with self._errors(key, _DELETE):
            try:
                self._blob(key).delete(timeout=self._timeout, retry=self._retry)
            except NotFound:
                self._require_bucket()

    # google-cloud-storage has no types: a blob is `Any`.

    def _blob(self, key: str) -> Any:
        return self._bucket.blob(self._root + key)

    def _listed(self, prefix: str, fields: str, **options: str) -> Any:
        """Iterator over a listing; the service is asked for a page when the page is needed."""
        return self._client.list_blobs(
            self._bucket,
            prefix=self._root + prefix,
            fields=fields,
            page_size=PAGE_SIZE,
            timeout=self._timeout,
            retry=self._retry,
            **options,
        )

    def _find(self, key: str) -> Any:
        """The object's properties without its body; None if the object is absent."""
        blob = self._bucket.get_blob(self._root + key, timeout=self._timeout, retry=self._retry)
        if blob is None:
            self._require_bucket()
        return blob

    def _holds(self, key: str, path: Path) -> bool:
        stored = self._find(key)
        return stored is not None and stored.size == path.stat().st_size and stored.crc32c == _crc32c(path)

    def _write(self, key: str, body: bytes, summary: Summary, **precondition: int) -> Any:
        encode_summary(summary)
        blob = self._blob(key)
        blob.metadata = dict(summary) or None
        blob.upload_from_string(
            body,
            content_type=_content_type(key),
            checksum="crc32c",
            timeout=self._timeout,
            retry=self._retry,
            **precondition,
        )
        return blob

    def _read(self, blob: Any, **byte_range: int) -> bytes:
        """Read an object or a range of it; each try starts from the beginning.

        The client's own retry asks for the missing rest of the same generation. If the object was overwritten
        meanwhile, it would report the object as absent.
        """

        def read_once() -> bytes:
            body: bytes = blob.download_as_bytes(checksum="crc32c", timeout=self._timeout, retry=None, **byte_range)
            return body

        body: bytes = self._retry(read_once)()
        return body

    def _fetch(self, blob: Any, path: Path) -> None:
        size, generation = blob.size, blob.generation
        with path.open("wb") as file:
            for start in range(0, size, BLOCK_BYTES):
                end = min(start + BLOCK_BYTES, size) - 1
                file.write(self._read(blob, start=start, end=end, if_generation_match=generation))

    def _require_bucket(self) -> None:
        """Raise `StoreError` if the bucket is missing, which the service reports like a missing object; asks once."""
        if not self._bucket_was_seen:
            with self._errors("", _LIST):
                one = self._client.list_blobs(
                    self._bucket, max_results=1, fields="items(name)", timeout=self._timeout, retry=self._retry
                )
                next(iter(one), None)
            self._bucket_was_seen = True

    def _place(self, key: str) -> str:
        return f"gs://{self._bucket_name}/{self._root}{key}"

    @contextmanager
    def _errors(self, key: str, permission: str) -> Iterator[None]:
        """Turn the client's errors into ours; `permission` is what the call most likely lacks if it is forbidden."""
        place = self._place(key)
        try:
            yield
        except NotFound as error:
            raise StoreError(f"bucket '{self._bucket_name}' does not exist: create it or correct the store") from error
        except Forbidden as error:
            named = _PERMISSION.search(str(error))
            raise StoreError(
                f"{place}: permission {named[0] if named else permission} is missing; "
                f"grant roles/storage.objectUser on bucket '{self._bucket_name}'"
            ) from error
        except DataCorruption as error:
            raise StoreError(f"{place} was damaged on its way: its checksum differs; try again") from error
        except RetryError as error:
            raise StoreUnavailableError(
                f"{place}: no success within {duration(self._deadline_s)} ({_brief(error.cause)}); call again later"
            ) from error
        except (Unauthorized, GoogleAuthError) as error:
            if getattr(error, "retryable", False):
                raise StoreUnavailableError(f"{place}: {_brief(error)}; call again later") from error
            raise StoreError(f"{place}: {_CREDENTIALS} ({_brief(error)})") from error
        except (GoogleAPICallError, requests.RequestException) as error:
            raise StoreError(f"{place}: {_brief(error)}") from error


def _new_client() -> Any:
    client = storage.Client(project=None)  # objects belong to buckets: no call here needs a project
    # The client has no public setting for these two. Without the second, every client asks for its bucket's metadata
    # in the background, for traces that nobody collects, and needs a permission for that (seen in 3.17).
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, HTTPAdapter(pool_maxsize=MAX_CONNECTIONS, pool_block=True))  # noqa: SLF001
    client._bucket_metadata_cache = None  # noqa: SLF001
    return client


def _parse(uri: str) -> tuple[str, str]:
    """Bucket, and the prefix of every key: empty, or with `/` at its end."""
    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not bucket:
        raise RefusedError("store", f"'{uri}' is not gs://bucket/prefix")
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


def _stored_at(blob: Any) -> float:
    stamp: float = blob.updated.timestamp()
    return stamp


def _content_type(key: str) -> str:
    """The type by which a browser shows the report and downloads the rest."""
    guess, encoding = mimetypes.guess_type(key)
    return guess if guess and not encoding else "application/octet-stream"


def _crc32c(path: Path) -> str:
    """Checksum of a file as the service writes it."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = google_crc32c.extend(crc, block)
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def _brief(error: object) -> str:
    """The first line of an error, without the pages of HTML that some proxies send."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
