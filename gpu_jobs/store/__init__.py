"""Object storage: `open_store` turns a place into a `Store`."""

import re
from collections.abc import Iterator
from pathlib import Path

from gpu_jobs.errors import RefusedError
from gpu_jobs.settings import Settings
from gpu_jobs.store.base import Entry, Store, Summary
from gpu_jobs.store.local import LocalStore

__all__ = ["Entry", "Store", "Summary", "campaign_names", "is_local", "open_store"]


def is_local(uri: str) -> bool:
    """True for a folder of this machine, which no other machine can reach."""
    return uri.startswith("file://") or not re.match(r"[a-z][a-z0-9+.-]*://", uri)


def open_store(uri: str) -> Store:
    """Open `gs://bucket/prefix`, `file:///folder` or a plain folder as a store; nothing is read or written yet."""
    if is_local(uri):
        return LocalStore(Path(uri.removeprefix("file://")).expanduser(), fsync=Settings().store_fsync)
    if uri.startswith("gs://"):
        try:
            from gpu_jobs.store.gcs import GcsStore  # half a second of import that local stores need not pay
        except ImportError as error:
            raise RefusedError("store", f"'{uri}' needs pip install 'fanfold[gcs]' ({error})") from error
        return GcsStore(uri)
    raise RefusedError("store", f"'{uri}' is neither a folder nor gs://bucket/prefix")


def campaign_names(root: Store, prefix: str = "") -> Iterator[str]:
    """Folders right under a store root whose name starts with `prefix`, in order; what they hold is not listed."""
    return root.folders(prefix)
