"""The manifest: the record of what a campaign has published, and how it is written and read."""

import io
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl
from pydantic import TypeAdapter

from gpu_jobs.errors import AuditError
from gpu_jobs.ledger import keys
from gpu_jobs.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """A published file in the campaign's store."""

    key: str
    num_rows: int
    """The number of rows; 0 if the file is not a table."""
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What was published, and from exactly which settlements."""

    digest: str
    """Digest of the tiles that the outputs were made from."""
    is_complete: bool
    """False while items are still open; a later manifest will then contain more."""
    num_items: int
    num_committed: int
    """Items that have rows, or are known to have none."""
    num_quarantined: int
    num_open: int
    outputs: tuple[OutputFile, ...]
    quarantine: OutputFile
    workload: str
    params: dict[str, Any]
    dataset: str
    dataset_digest: str
    versions: dict[str, str]
    created_at: datetime
    exports: tuple[OutputFile, ...] = ()
    """Files in the workload's own format."""
    facts: dict[str, list[str]] = field(default_factory=dict)
    """All values of what the rows may depend on, as GPU workers reported it (`device`, `engine`, `precision`, …)."""
    version: int = 1


_MANIFEST = TypeAdapter(Manifest)


def publish_manifest(store: Store, manifest: Manifest) -> Manifest:
    """Write the manifest unless another process has published the same settlements; return the one that is stored."""
    store.create(keys.manifest(manifest.digest), _MANIFEST.dump_json(manifest))
    return read_manifest(store, manifest.digest) or manifest


def read_manifest(store: Store, digest: str) -> Manifest | None:
    """Return the manifest that was published for the tiles with this digest, or None."""
    body = store.get(keys.manifest(digest))
    return None if body is None else _MANIFEST.validate_json(body)


def newest_manifest(store: Store) -> Manifest | None:
    """Return the manifest with the fewest open items, or None if nothing was published."""
    found = (read_manifest(store, keys.stem(entry.key)) for entry in store.list(keys.MANIFESTS))
    return min((each for each in found if each is not None), key=lambda each: each.num_open, default=None)


def read_output(store: Store, file: OutputFile) -> pl.DataFrame:
    """Read one published file into memory. Raises `AuditError` if it is gone."""
    body = store.get(file.key)
    if body is None:
        raise AuditError(f"{file.key} is gone; collect again")
    return pl.read_parquet(io.BytesIO(body))
