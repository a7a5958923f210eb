"""Reading many objects together: a bucket takes tens of milliseconds for each, however many are read at once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gpu_jobs.store.base import Store

NUM_THREADS = 16


def get_many(store: Store, keys: Sequence[str]) -> list[bytes | None]:
    """The bodies of objects, in the order of `keys`; None where there is no object. Raises what `Store.get` raises."""
    if len(keys) <= 1:
        return [store.get(key) for key in keys]
    with ThreadPoolExecutor(min(NUM_THREADS, len(keys)), thread_name_prefix="read") as pool:
        return list(pool.map(store.get, keys))
