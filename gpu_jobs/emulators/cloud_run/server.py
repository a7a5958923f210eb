"""The emulator as a server: one event loop in a thread, with the same handlers for gRPC and REST."""

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc

from gpu_jobs.emulators.base import HOST, Image, ThreadedServer
from gpu_jobs.emulators.cloud_run.methods import SERVICES, Call, answer
from gpu_jobs.emulators.cloud_run.rest import RestServer
from gpu_jobs.emulators.cloud_run.rules import ApiError
from gpu_jobs.emulators.cloud_run.script import TaskFault
from gpu_jobs.emulators.cloud_run.world import World


class CloudRunEmulator(ThreadedServer):
    """A context manager: clients use `grpc_address` or `rest_url` while it is entered; its end kills every process.

    `world` holds the resources, the bill and the settings for tests; `world.script` holds the faults.
    """

    def __init__(self, images: Mapping[str, Image], **knobs: Any) -> None:
        super().__init__()
        self.world = World(images=dict(images), **knobs)
        self.calls: list[str] = []
        """The names of all methods called, in order."""
        self.grpc_address = ""
        self.rest_url = ""

    def strike(self, job: str, index: int, fault: TaskFault) -> None:
        """Apply a fault to the running task of a job, given the last part of its name. Any thread may call this."""

        async def now() -> None:
            for name, running in self.world.executions.items():
                if name.split("/")[5] == job:
                    running.strike(index, fault)

        self.call(now())

    async def _serve(self) -> None:
        server = grpc.aio.server()
        for service, calls in SERVICES.items():
            handlers = {name: self._handler(name, call) for name, call in calls.items()}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self.grpc_address = f"{HOST}:{server.add_insecure_port(f'{HOST}:0')}"
        await server.start()
        rest = RestServer(self.world, self.calls, asyncio.get_running_loop())
        self.rest_url = f"http://{HOST}:{rest.port}"
        rest.start()
        await self._until_over()
        await asyncio.to_thread(rest.stop)
        await server.stop(0)
        left = [*self.world.executions.values(), *self.world.deleted]
        for running in left:
            running.cancel()
            running.kill()
        await asyncio.gather(*(running.wait() for running in left))

    def _handler(self, name: str, call: Call) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            self.calls.append(name)
            try:
                return await answer(self.world, name, call, request)
            except ApiError as error:
                await context.abort(error.code, str(error))

        return grpc.unary_unary_rpc_method_handler(
            handle, request_deserializer=call.deserialize, response_serializer=call.serialize
        )
