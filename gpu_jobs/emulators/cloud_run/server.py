"""The emulator: one event loop in a thread, with the same handlers behind gRPC and REST."""

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Self

import grpc

from gpu_jobs.emulators.cloud_run.methods import SERVICES, Call, answer
from gpu_jobs.emulators.cloud_run.rest import RestServer
from gpu_jobs.emulators.cloud_run.rules import ApiError
from gpu_jobs.emulators.cloud_run.script import TaskFault
from gpu_jobs.emulators.cloud_run.world import Image, World

_HOST = "127.0.0.1"
_PATIENCE_S = 20.0


class CloudRunEmulator:
    """A context manager: enter it, point clients at `grpc_address` or `rest_url`; the end kills every process.

    `world` holds the resources, the bill and the knobs; `world.script` the faults.
    """

    def __init__(self, images: Mapping[str, Image], **knobs: Any) -> None:
        self.world = World(images=dict(images), **knobs)
        self.calls: list[str] = []
        """Names of all methods called, in order."""
        self.grpc_address = ""
        self.rest_url = ""
        self._running: Future[asyncio.AbstractEventLoop] = Future()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="cloud-run-emulator", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        loop = self._running.result(_PATIENCE_S)
        self._rest = RestServer(self.world, self.calls, loop)
        self.rest_url = f"http://{_HOST}:{self._rest.port}"
        self._rest.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rest.stop()
        self._running.result().call_soon_threadsafe(self._over.set)
        self._thread.join(_PATIENCE_S)

    def strike(self, job: str, index: int, fault: TaskFault) -> None:
        """Let a fault befall the running task of a job, by the last part of its name; from any thread."""

        async def now() -> None:
            for name, running in self.world.executions.items():
                if name.split("/")[5] == job:
                    running.strike(index, fault)

        asyncio.run_coroutine_threadsafe(now(), self._running.result()).result(_PATIENCE_S)

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            if not self._running.done():
                self._running.set_exception(error)
            raise

    async def _run(self) -> None:
        server = grpc.aio.server()
        for service, calls in SERVICES.items():
            handlers = {name: self._handler(name, call) for name, call in calls.items()}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self.grpc_address = f"{_HOST}:{server.add_insecure_port(f'{_HOST}:0')}"
        await server.start()
        self._running.set_result(asyncio.get_running_loop())
        await self._over.wait()
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
