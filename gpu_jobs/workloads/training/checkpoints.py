"""Checkpoints of one long item in the store.

The files are uploaded first, under a unique prefix; then the manifest is created, once. Files without a manifest are
not a checkpoint, so an upload that was killed half-way is never restored.
"""

import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from gpu_jobs.errors import StoreError, StoreUnavailableError
from gpu_jobs.ledger import keys
from gpu_jobs.store import Store
from gpu_jobs.workloads.training.gang_files import SAVED

_KEEP = 2
"""How many checkpoints of an item are kept; the older one is the fallback if the newest is damaged."""
_UNWANTED = "training_args.bin"
"""A pickle that the Trainer writes and nothing reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    name: str
    key: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointManifest:
    """Lists the files of a complete checkpoint."""

    step: int
    files: tuple[StoredFile, ...]
    version: int = 1


_MANIFEST = TypeAdapter(CheckpointManifest)


class Checkpoints:
    """Reads the checkpoints of one item, and writes those of one attempt."""

    def __init__(self, store: Store, index: int) -> None:
        self._store = store
        self._index = index
        self._nonce = uuid.uuid4().hex[:12]
        self.notes: list[str] = []
        """Notes for people about checkpoints that were skipped or not stored."""

    def save(self, folder: Path, step: int) -> None:
        """Upload a checkpoint, and delete the ones that are now too old.

        If another attempt has already stored a checkpoint for this step, that one is kept; both are equally valid.
        """
        files = tuple(upload_folder(self._store, folder, lambda name: self._key(step, name), without=SAVED))
        manifest = _MANIFEST.dump_json(CheckpointManifest(step=step, files=files))
        if not self._store.create(keys.checkpoint(self._index, step), manifest):
            for file in files:
                self._store.delete(file.key)
        for old in self._steps()[_KEEP:]:
            self._delete(old)

    def restore(self, folder: Path) -> int:
        """Download the newest complete checkpoint into the new folder `folder`; return its step, 0 if there is none."""
        for step in self._steps():
            try:
                self._download(step, folder)
            except StoreUnavailableError:
                raise
            except (StoreError, ValidationError) as error:
                self.notes.append(f"checkpoint {step} was skipped: {error}")
                continue
            return step
        return 0

    def _steps(self) -> list[int]:
        """Steps of the stored checkpoints, newest first."""
        prefix = keys.checkpoints_of(self._index)
        names = (entry.key.removeprefix(prefix) for entry in self._store.list(prefix))
        return sorted((int(name.removesuffix(".json")) for name in names if "/" not in name), reverse=True)

    def _key(self, step: int, name: str) -> str:
        return keys.checkpoint_file(self._index, step, self._nonce, name)

    def _manifest(self, step: int) -> CheckpointManifest:
        body = self._store.get(keys.checkpoint(self._index, step))
        if body is None:
            raise StoreError("it was deleted meanwhile")
        return _MANIFEST.validate_json(body)

    def _download(self, step: int, folder: Path) -> None:
        for file in self._manifest(step).files:
            self._store.download(file.key, folder / file.name)
            if sha256_of(folder / file.name) != file.sha256:
                raise StoreError(f"{file.key} has another checksum than its manifest says")

    def _delete(self, step: int) -> None:
        """Delete the manifest first, so that no manifest names deleted files."""
        try:
            files = self._manifest(step).files
        except (StoreError, ValidationError):
            files = ()
        self._store.delete(keys.checkpoint(self._index, step))
        for file in files:
            self._store.delete(file.key)


class Uploader:
    """Uploads the newest complete checkpoint of a folder in a background thread; older ones are skipped."""

    def __init__(self, checkpoints: Checkpoints, out: Path, processes: int, after_step: int) -> None:
        """Checkpoints up to `after_step`, the step that the training resumed from, are not uploaded."""
        self._checkpoints = checkpoints
        self._out = out
        self._processes = processes
        self._last_step = after_step
        self._pool = ThreadPoolExecutor(1, "upload")
        self._pending: Future[int] | None = None

    def poll(self) -> bool:
        """Start an upload if there is a new checkpoint; True if one has succeeded since the last poll."""
        if self._pending is not None and not self._pending.done():
            return False
        has_ended = self._take_result()
        if newest := self._newest():
            self._pending = self._pool.submit(self._upload, newest)
        return has_ended

    def finish(self) -> bool:
        """Upload the newest checkpoint and wait for it; True if an upload has succeeded since the last poll."""
        found = self._take_result()
        self.poll()
        found |= self._take_result()
        self._pool.shutdown()
        return found

    def _take_result(self) -> bool:
        pending, self._pending = self._pending, None
        if pending is None:
            return False
        try:
            self._last_step = pending.result()
        except StoreUnavailableError as error:
            self._checkpoints.notes.append(f"a checkpoint could not be stored: {error}")
            return False
        return True

    def _newest(self) -> int:
        whole = [step for step in self._whole() if step > self._last_step]
        return max(whole, default=0)

    def _whole(self) -> Iterator[int]:
        for folder in self._out.glob("checkpoint-*"):
            if len(list(folder.glob(f"{SAVED}*"))) == self._processes:
                yield int(folder.name.rpartition("-")[2])

    def _upload(self, step: int) -> int:
        self._checkpoints.save(self._out / f"checkpoint-{step}", step)
        for old in [each for each in self._whole() if each < step]:
            shutil.rmtree(self._out / f"checkpoint-{old}")
        return step


def upload_folder(
    store: Store, folder: Path, key: Callable[[str], str], *, without: str = "\0"
) -> Iterator[StoredFile]:
    """Upload a folder's files to `key(name)`, except those whose file name begins with `without`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(without) and path.name != _UNWANTED:
            name = path.relative_to(folder).as_posix()
            file = StoredFile(name=name, key=key(name), sha256=sha256_of(path))
            store.upload(file.key, path)
            yield file


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
