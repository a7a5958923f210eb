"""Datasets of the Hugging Face hub, read from the Parquet files that the hub makes on a separate branch."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from gpu_jobs.errors import RefusedError
from gpu_jobs.settings import Settings
from gpu_jobs.store import open_store

HUB = "hub:"
_REVISION = "refs/convert/parquet"
_ID = "id"


def store_table(dataset: str, store_root: str) -> str:
    """Copy a split of a hub dataset into the store as one table, unless it is there; return its address.

    Args:
        dataset: `hub:OWNER/NAME`, `hub:OWNER/NAME/CONFIG` or `hub:OWNER/NAME/CONFIG/SPLIT`; config and
            split are `default` and `train` by default. Rows without a column `id` are numbered.
        store_root: a folder or `gs://bucket/prefix`.

    Raises:
        RefusedError: the name is malformed, or the dataset cannot be downloaded.
    """
    owner, name, config, split = _parsed(dataset)
    files = _download(f"{owner}/{name}", f"{config}/{split}/*.parquet")
    commit = files[0].parents[2].name
    digest = hashlib.sha256(f"{dataset} {commit}".encode()).hexdigest()[:16]
    store, key = open_store(store_root), f"datasets/{name.lower()}-{digest}.parquet"
    if not any(store.list(key)):
        rows = pl.scan_parquet(files)
        if _ID not in rows.collect_schema():
            rows = rows.with_row_index(_ID)
        with TemporaryDirectory(prefix="fanfold-hub-") as folder:
            rows.sink_parquet(Path(folder, "table.parquet"))
            store.upload(key, Path(folder, "table.parquet"))
    return f"{store.uri}/{key}"


def _parsed(dataset: str) -> tuple[str, str, str, str]:
    parts = dataset.removeprefix(HUB).split("/")
    if not 2 <= len(parts) <= 4 or not all(parts):  # noqa: PLR2004 - the message explains the numbers
        raise RefusedError("dataset", f"'{dataset}' is not {HUB}OWNER/NAME, optionally followed by /CONFIG and /SPLIT")
    owner, name, config, split = [*parts, *("default", "train")[len(parts) - 2 :]]
    return owner, name, config, split


def _download(name: str, pattern: str) -> list[Path]:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise RefusedError(
            "dataset", f"'{HUB}{name}' needs the package huggingface_hub, which is not installed here"
        ) from error
    cache = Path(Settings().model_cache).expanduser() / "hub-datasets"
    try:
        found = snapshot_download(
            name, repo_type="dataset", revision=_REVISION, cache_dir=cache, allow_patterns=[pattern]
        )
    except (OSError, ValueError) as error:  # huggingface_hub raises these for any failure
        raise RefusedError("dataset", f"'{HUB}{name}' cannot be loaded: {error}") from error
    files = sorted(Path(found).glob(pattern))
    if not files:
        raise RefusedError(
            "dataset", f"'{HUB}{name}' has no {pattern}; name its config and split, OWNER/NAME/CONFIG/SPLIT"
        )
    return files
