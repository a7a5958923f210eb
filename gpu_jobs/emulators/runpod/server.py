"""The emulator as a server in a thread."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self, TypeVar

from aiohttp import web

from gpu_jobs.emulators.runpod.queue import Queue
from gpu_jobs.emulators.runpod.rest import Rest
from gpu_jobs.emulators.runpod.world import Image, World

_HOST = "127.0.0.1"
_PATIENCE_S = 30.0
_T = TypeVar("_T")


class RunPodEmulator:
    """Serves REST v2 below `url`/v2, and the queue of serverless endpoints below `url`/ai/v2.

    A context manager; at its end every container is over.

    Args:
        images: what a container of each image is.
        knobs: see `World`.
    """

    def __init__(self, images: dict[str, Image], **knobs: Any) -> None:
        self.world = World(images=images, **knobs)
        self.calls: list[str] = []
        """Method and path of every request, in order."""
        self.url = ""
        self._running: Future[asyncio.AbstractEventLoop] = Future()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="runpod-emulator", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._running.result(_PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.result().call_soon_threadsafe(self._over.set)
        self._thread.join(_PATIENCE_S)

    def do(self, act: Callable[[World], _T]) -> _T:
        """Look at the world, or change it, from any thread."""

        async def now() -> _T:
            found = act(self.world)
            return await found if asyncio.iscoroutine(found) else found

        return asyncio.run_coroutine_threadsafe(now(), self._running.result()).result(_PATIENCE_S)

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            if not self._running.done():
                self._running.set_exception(error)
            raise

    async def _run(self) -> None:
        app = web.Application(client_max_size=2**20)
        Rest(self.world, self.calls).add_to(app)
        Queue(self.world).add_to(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, _HOST, 0)
        await site.start()
        self.url = self.world.url = f"http://{_HOST}:{runner.addresses[0][1]}"
        self._running.set_result(asyncio.get_running_loop())
        await self._over.wait()
        await runner.cleanup()
        await self.world.close()
