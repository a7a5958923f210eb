"""The emulator as a server in a thread."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from gpu_jobs.emulators.base import HOST, Image, ThreadedServer
from gpu_jobs.emulators.runpod.queue import Queue
from gpu_jobs.emulators.runpod.rest import Rest
from gpu_jobs.emulators.runpod.world import World

_T = TypeVar("_T")


class RunPodEmulator(ThreadedServer):
    """Serves REST v2 below `url`/v2, and the queues of serverless endpoints below `url`/ai/v2.

    It is a context manager; after its end every container is dead.

    Args:
        images: the images that containers may be started from, by name.
        knobs: fields of `World`.
    """

    def __init__(self, images: dict[str, Image], **knobs: Any) -> None:
        super().__init__()
        self.world = World(images=images, **knobs)
        self.calls: list[str] = []
        """Method and path of every request, in order."""
        self.url = ""

    def do(self, act: Callable[[World], _T]) -> _T:
        """Read or change the world, from any thread."""

        async def now() -> _T:
            found = act(self.world)
            return await found if asyncio.iscoroutine(found) else found

        return self.call(now())

    async def _serve(self) -> None:
        app = web.Application(client_max_size=2**20)
        Rest(self.world, self.calls).add_to(app)
        Queue(self.world).add_to(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        self.url = self.world.url = f"http://{HOST}:{runner.addresses[0][1]}"
        await self._until_over()
        await runner.cleanup()
        await self.world.close()
