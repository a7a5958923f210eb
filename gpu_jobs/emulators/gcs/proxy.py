"""A proxy in front of fake-gcs-server. It forwards bytes unchanged, unless a scripted fault says otherwise."""

import asyncio
import http.client
import json
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import unquote

from gpu_jobs.emulators.base import HOST, ThreadedServer

_HEAD_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 16
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault of the first request that matches. Its effects may be combined; latency comes first."""

    method: str = ""
    """The HTTP method to match; "" matches any."""
    path: str = ""
    """A regular expression that is searched in the decoded path and query; these lack the key of an upload."""
    latency_s: float = 0.0
    status: int = 0
    """The proxy answers with this status without asking the server; 0 means no such answer."""
    reply_is_lost: bool = False
    """The server carries the request out, then the connection is dropped."""
    cut_after_bytes: int | None = None
    """The connection is dropped after this many bytes of the reply's body."""


class _Dropped(Exception):  # noqa: N818 - not an error: a connection that is over
    """One side of a proxied connection has gone, or a fault says so."""


class Proxy(ThreadedServer):
    """Forwards HTTP/1.1 to the server, with one connection to it for each client connection; runs in a thread."""

    def __init__(self, faults: list[Fault], requests: list[str]) -> None:
        super().__init__()
        self.server_port = 0
        self._faults, self._requests = faults, requests
        self._socket = socket.create_server((HOST, 0), backlog=256)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited; else 40 ms a reply
        self.port: int = self._socket.getsockname()[1]

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._pass_on, sock=self._socket, limit=_HEAD_BYTES)
        await self._until_over()
        server.close()  # the connections end with the loop

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = None
        try:
            while head := await _read_head(reader):
                server = server or await asyncio.open_connection(HOST, self.server_port, limit=_HEAD_BYTES)
                await self._exchange(head, (reader, writer), server)
        except (_Dropped, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # over, as is the task: only the end of the loop cancels it
        finally:
            for end in (writer, *(server or ())[1:]):
                end.close()

    async def _exchange(self, head: "_Head", client: _Streams, server: _Streams) -> None:
        """Forward one request and its reply, or apply a scripted fault."""
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
        """Yield the body as it is on the wire. For a reply, `asked_by` is the method of the request."""
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
    """Forward `body`, or discard it if `writer` is None; drop the connection after `cut` bytes."""
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
