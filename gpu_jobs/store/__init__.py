"""Object storage: `open_store` opens a `Store` by its URI."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from gpu_jobs.errors import RefusedError
from gpu_jobs.settings import Settings
from gpu_jobs.store.base import Entry, Store, Summary
from gpu_jobs.store.local import LocalStore

__all__ = ["Entry", "Store", "Summary", "campaign_names", "is_local", "open_store"]


def is_local(uri: str) -> bool:
    """True for a folder on this machine, which other machines cannot reach."""
    return uri.startswith("file://") or not re.match(r"[a-z][a-z0-9+.-]*://", uri)


def open_store(uri: str) -> Store:
    """Open `gs://bucket/prefix`, `file:///folder` or a plain folder as a store; nothing is read or written yet."""
    if is_local(uri):
        return LocalStore(Path(uri.removeprefix("file://")).expanduser(), fsync=Settings().store_fsync)
    if uri.startswith("gs://"):
        if Settings().rehearsal and "STORAGE_EMULATOR_HOST" not in os.environ:
            raise RefusedError("store", f"'{uri}' is real, and a rehearsal uses emulators only: add gcs to --platforms")
        try:
            from gpu_jobs.store.gcs import GcsStore  # this import takes half a second, which local stores save
        except ImportError as error:
            raise RefusedError("store", f"'{uri}' needs pip install 'fanfold[gcs]' ({error})") from error
        return GcsStore(uri)
    raise RefusedError("store", f"'{uri}' is neither a folder nor gs://bucket/prefix")


def campaign_names(root: Store, prefix: str = "") -> Iterator[str]:
    """Names of the folders directly under a store root that start with `prefix`, in order; lists no contents."""
    return root.folders(prefix)
