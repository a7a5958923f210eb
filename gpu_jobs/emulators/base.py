"""What every emulator offers to a rehearsal, and the base class of emulators that serve from an event loop."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

HOST = "127.0.0.1"
PATIENCE_S = 60.0
"""How long to wait for a server to start, to end, or to do what a test asks."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """A running emulator: the environment that makes the platform's client use it, and the bill so far."""

    environ: Mapping[str, str]
    bill: Callable[[], str]
    """Returns the bill so far, in a few lines for people; may be called at any time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image: what its containers add to the command and environment that they are started with."""

    argv: Sequence[str] = ()
    """Precedes the command. If its first word is "python", that program is looked up on the image's PATH."""
    env: Mapping[str, str] = field(default_factory=dict)


class ThreadedServer(ABC):
    """A context manager: it serves in a thread with an own event loop while it is entered."""

    def __init__(self) -> None:
        self._running: Future[asyncio.AbstractEventLoop] = Future()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name=type(self).__name__, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._running.result(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.result().call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE_S)

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the server's thread, and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._running.result()).result(PATIENCE_S)

    @abstractmethod
    async def _serve(self) -> None:
        """Start the server, `await self._until_over()`, and clean up everything."""

    async def _until_over(self) -> None:
        self._running.set_result(asyncio.get_running_loop())
        await self._over.wait()

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if not self._running.done():
                self._running.set_exception(error)
            raise
