"""Serves the same methods over HTTP and JSON."""

import asyncio
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import grpc
from google.longrunning import operations_pb2
from google.protobuf import json_format

from gpu_jobs.emulators.cloud_run.methods import HTTP, SERVICES, Call, ReplyLostError, answer
from gpu_jobs.emulators.cloud_run.rules import ApiError
from gpu_jobs.emulators.cloud_run.world import World

_STATUS = {code: status for status, code in HTTP.items()} | {grpc.StatusCode.FAILED_PRECONDITION: 400}
_PATIENCE_S = 60.0


class RestServer:
    """An HTTP/1.1 server with threads; every call is carried out in the emulator's event loop."""

    def __init__(self, world: World, calls: list[str], loop: asyncio.AbstractEventLoop) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                try:
                    name, call, request = _parse(self.command, self.path, body)
                    calls.append(name)
                    asked = asyncio.run_coroutine_threadsafe(answer(world, name, call, request), loop)
                    self._send(200, _to_json(asked.result(_PATIENCE_S)))
                except ReplyLostError:
                    self.close_connection = True
                except ApiError as error:
                    status = _STATUS[error.code]
                    told = {"code": status, "message": str(error), "status": error.code.name}
                    self._send(status, json.dumps({"error": told}))

            do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - names that the server calls

            def _send(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Write nothing to the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _parse(verb: str, target: str, body: bytes) -> tuple[str, Call, Any]:
    url = urlsplit(target)
    path = unquote(url.path).removeprefix("/v2/")
    for name, call in (pair for calls in SERVICES.values() for pair in calls.items()):
        if call.verb == verb and (found := re.fullmatch(call.path, path)):
            return name, call, _request(call, found.groupdict(), url.query, body)
    raise ApiError(grpc.StatusCode.NOT_FOUND, f"no method {verb} {path}")


def _request(call: Call, from_path: dict[str, str], query: str, body: bytes) -> Any:
    fields: dict[str, Any] = {key: values[-1] for key, values in parse_qs(query).items() if not key.startswith("$")}
    content = json.loads(body or b"{}")
    fields |= content if call.body == "*" else {call.body: content} if call.body else {}
    fields |= from_path
    is_plain = call.request is operations_pb2.GetOperationRequest
    raw = call.request() if is_plain else call.request.pb(call.request())
    json_format.ParseDict(fields, raw, ignore_unknown_fields=True)
    return raw if is_plain else call.request.wrap(raw)


def _to_json(message: Any) -> str:
    raw = message if isinstance(message, operations_pb2.Operation) else type(message).pb(message)
    return str(json_format.MessageToJson(raw, use_integers_for_enums=True))
