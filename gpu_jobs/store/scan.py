"""Published Parquet files of any store as a polars LazyFrame."""

import os
from collections.abc import Sequence

import polars as pl

from gpu_jobs.store.base import Store

_EMULATOR = "STORAGE_EMULATOR_HOST"


def scan_parquet(store: Store, keys: Sequence[str]) -> pl.LazyFrame:
    """Scan objects of a store lazily; polars reads a bucket by its own client, with that client's usual credentials."""
    places = [f"{store.uri}/{key}" for key in keys]
    if not store.uri.startswith("gs://") or _EMULATOR not in os.environ:
        return pl.scan_parquet(places)
    key = f'{{"gcs_base_url": "{os.environ[_EMULATOR]}", "disable_oauth": true, "client_email": "", "private_key": "", '
    options = {"google_service_account_key": key + '"private_key_id": ""}', "allow_http": "true"}
    return pl.scan_parquet(places, storage_options=options, credential_provider=None)
