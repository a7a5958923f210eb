"""Downloads the packed blocks of tokens that a campaign of the workload `prepare` has published."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from filelock import FileLock

from gpu_jobs.errors import ItemError
from gpu_jobs.settings import Settings
from gpu_jobs.store import Store, open_store

TRAIN, VALIDATION = "train", "validation"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Prepared data on this machine: `train.npy` and `validation.npy` in `folder`, int32 [blocks, tokens]."""

    folder: Path
    digest: str
    """Digest of the manifest that published the data."""
    num_train: int
    num_validation: int
    block: int
    """Number of tokens in a block."""


def fetch(manifest: str) -> Prepared:
    """Download prepared data, once per machine, however many processes ask for it.

    Args:
        manifest: `<campaign>/manifests/<digest>.json`.

    Raises:
        ItemError: there is no such manifest, or a file does not match its checksum.
        StoreUnavailableError: the store does not answer.
    """
    campaign, _, name = manifest.rpartition("/manifests/")
    digest = name.removesuffix(".json")
    folder = Path(Settings().model_cache).expanduser() / "prepared" / digest[:32]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            temp = folder.with_name(f".{folder.name}.part")
            shutil.rmtree(temp, ignore_errors=True)
            temp.mkdir()
            _write(open_store(campaign), f"manifests/{name}", temp)
            temp.replace(folder)
    shapes = [np.load(folder / f"{split}.npy", mmap_mode="r").shape for split in (TRAIN, VALIDATION)]
    return Prepared(folder, digest, shapes[0][0], shapes[1][0], shapes[0][1])


def _write(store: Store, key: str, folder: Path) -> None:
    body = store.get(key)
    if body is None:
        raise ItemError(f"prepared data: there is no {store.uri}/{key}")
    frames = []
    for number, file in enumerate(json.loads(body)["outputs"]):
        path = folder / f"{number}.parquet"
        store.download(file["key"], path)
        with path.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != file["sha256"]:
                raise ItemError(f"prepared data: {store.uri}/{file['key']} is not what its manifest says")
        frames.append(pl.scan_parquet(path))
    blocks = pl.concat(frames)
    for split in (TRAIN, VALIDATION):
        tokens = blocks.filter(pl.col("split") == split).select("tokens").collect()["tokens"]
        if tokens.is_empty():
            raise ItemError(
                f"prepared data: {store.uri} has no complete block for {split}; use more text or smaller blocks"
            )
        rows = tokens.explode().to_numpy().reshape(len(tokens), -1)
        np.save(folder / f"{split}.npy", rows.astype(np.int32))
    for path in folder.glob("*.parquet"):
        path.unlink()
