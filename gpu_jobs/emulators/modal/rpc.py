"""The gRPC service, generated from the descriptors of the installed client, so that it works with many versions."""

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message_factory import GetMessageClass
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server
from modal_proto import api_pb2

from gpu_jobs.emulators.modal.script import Fault, Script

if TYPE_CHECKING:
    from gpu_jobs.emulators.modal.container import Container

log = logging.getLogger(__name__)
MessageT = TypeVar("MessageT")
_SERVICE = "ModalClient"
_MAX_REMEMBERED = 10_000


def made(kind: type[MessageT], **fields: Any) -> MessageT:
    """Create a message, leaving out the fields that the installed client does not know."""
    known = kind.DESCRIPTOR.fields_by_name  # type: ignore[attr-defined]
    return kind(**{name: value for name, value in fields.items() if name in known})


def copied(kind: type[MessageT], source: Any) -> MessageT:
    """Create a message with all fields of another message that have the same name and type."""
    target = kind()
    known = kind.DESCRIPTOR.fields_by_name  # type: ignore[attr-defined]
    for field, value in source.ListFields():
        twin = known.get(field.name)
        if twin is None or (twin.type, twin.is_repeated, twin.message_type) != (
            field.type,
            field.is_repeated,
            field.message_type,
        ):
            continue
        if field.is_repeated and field.message_type and field.message_type.GetOptions().map_entry:
            getattr(target, field.name).MergeFrom(value)
        elif field.is_repeated:
            getattr(target, field.name).extend(value)
        elif field.message_type:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)
    return target


def absent(what: str) -> GRPCError:
    return GRPCError(Status.NOT_FOUND, f"{what} not found")


class Gateway:
    """Forwards each call to the method of the same name, in snake case, of the first of `services` that has one.

    Such a method takes the request and the calling container (None for a client), and returns the reply. A method with
    a streamed reply is an asynchronous generator.
    """

    def __init__(self, services: Sequence[object], script: Script, token: tuple[str, str]) -> None:
        self._services = services
        self._script = script
        self._token = token
        self._replies: dict[str, Any] = {}
        self.calls: list[str] = []
        """The names of all calls of clients, in order."""

    def facing(self, caller: "Container | None") -> "Facade":
        return Facade(self._mapping(caller))

    def _mapping(self, caller: "Container | None") -> dict[str, Handler]:
        methods = api_pb2.DESCRIPTOR.services_by_name[_SERVICE].methods
        return {f"/modal.client.{_SERVICE}/{each.name}": self._handler(each, caller) for each in methods}

    def _handler(self, method: Any, caller: "Container | None") -> Handler:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
        call = next((getattr(each, name) for each in self._services if hasattr(each, name)), None)

        async def handle(stream: Any) -> None:
            await self._handle(stream, method, call, caller)

        return Handler(
            handle, _cardinality(method), GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        )

    async def _handle(self, stream: Any, method: Any, call: Callable[..., Any] | None, caller: Any) -> None:
        request = await stream.recv_message()
        fault = None
        if caller is None:
            self.calls.append(method.name)
            self._authorise(stream.metadata)
            fault = self._script.take(method.name)
        if fault is not None:
            await asyncio.sleep(fault.latency_s)
            if fault.status and not fault.reply_is_lost:
                raise _error(fault)
        if call is None:
            raise GRPCError(Status.UNIMPLEMENTED, f"{method.name} is not emulated")
        try:
            await self._answer(stream, call, request, caller, fault)
        except (GRPCError, asyncio.CancelledError):
            raise
        except Exception as error:  # the client would retry a call that is answered with UNKNOWN
            log.exception("the emulator failed in %s", method.name)
            raise GRPCError(Status.FAILED_PRECONDITION, f"the emulator failed: {error!r}") from error

    async def _answer(
        self, stream: Any, call: Callable[..., Any], request: Any, caller: Any, fault: Fault | None
    ) -> None:
        """Send the reply. A call that is retried after a lost reply has the same key, and gets the first reply."""
        answer = call(request, caller)
        if hasattr(answer, "__aiter__"):
            async for reply in answer:
                await stream.send_message(reply)
            return
        key = stream.metadata.get("x-idempotency-key")
        if key in self._replies:
            answer.close()
            reply = self._replies[key]
        else:
            reply = await answer
            if key is not None:
                self._remember(key, reply)
        if fault is not None and fault.status:
            raise _error(fault)
        await stream.send_message(reply)

    def _remember(self, key: str, reply: Any) -> None:
        self._replies[key] = reply
        if len(self._replies) > _MAX_REMEMBERED:
            del self._replies[next(iter(self._replies))]

    def _authorise(self, metadata: Any) -> None:
        given = (metadata.get("x-modal-token-id"), metadata.get("x-modal-token-secret"))
        if given != self._token:
            raise GRPCError(Status.UNAUTHENTICATED, "Token ID is malformed or unknown")


class Facade:
    """What one listener of grpclib serves, in the form that grpclib expects."""

    def __init__(self, mapping: dict[str, Handler]) -> None:
        self._mapping = mapping

    def __mapping__(self) -> dict[str, Handler]:
        return self._mapping


class Listener(Server):
    """A server that closes its connections when it stops; grpclib's own waits until its clients close them."""

    def __init__(self, facade: Facade) -> None:
        super().__init__([facade])
        self._connections: list[asyncio.BaseTransport] = []

    def _protocol_factory(self) -> Any:
        protocol = super()._protocol_factory()
        connect = protocol.connection_made

        def connection_made(transport: asyncio.BaseTransport) -> None:
            self._connections.append(transport)
            connect(transport)

        protocol.connection_made = connection_made  # type: ignore[method-assign]
        return protocol

    @property
    def port(self) -> int:
        bound: Any = self._server  # grpclib has no property for its port
        return int(bound.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self.close()
        for transport in self._connections:
            transport.close()
        await self.wait_closed()


def _cardinality(method: Any) -> Cardinality:
    if method.client_streaming:
        return Cardinality.STREAM_STREAM if method.server_streaming else Cardinality.STREAM_UNARY
    return Cardinality.UNARY_STREAM if method.server_streaming else Cardinality.UNARY_UNARY


def _error(fault: Fault) -> GRPCError:
    return GRPCError(Status[fault.status], fault.message)
