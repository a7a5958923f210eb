"""What the doctors of all platforms share: how a check is made, and the check of the store."""

import uuid
from collections.abc import Callable

from gpu_jobs.errors import PlatformError, RefusedError, StoreError
from gpu_jobs.platforms.base import Check
from gpu_jobs.store import is_local, open_store


class MissingError(Exception):
    """A check has failed: what is wrong, and what to do about it."""

    def __init__(self, found: str, fix: str = "") -> None:
        super().__init__(found)
        self.fix = fix


def check(name: str, look: Callable[[], str]) -> Check:
    """Run one check. It is passed if `look` returns, and failed if it raises `MissingError` or a Fanfold error."""
    try:
        return Check(name=name, is_ok=True, found=look())
    except MissingError as missing:
        return Check(name=name, is_ok=False, found=str(missing), fix=missing.fix)
    except (PlatformError, RefusedError, StoreError) as error:
        return Check(name=name, is_ok=False, found=str(error))


def try_store(store_root: str) -> str:
    """Check what the ledger relies on: when two writers create one object, the second is refused."""
    if is_local(store_root):
        raise MissingError(f"'{store_root}' is a folder of this machine", "Give gs://bucket/prefix")
    key = f"fanfold-doctor/{uuid.uuid4().hex}"
    store = open_store(store_root)
    first, second = store.create(key, b"one"), store.create(key, b"two")
    store.delete(key)
    if not first or second:
        raise MissingError(f"{store_root} lets a second writer overwrite the first", "Use a bucket of GCS itself")
    return f"{store_root}: one writer wins, the next is refused"
