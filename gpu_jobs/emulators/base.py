"""What every emulator offers to a rehearsal, and what those have in common that serve from an event loop."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

HOST = "127.0.0.1"
PATIENCE_S = 60.0
"""For a server to start, to end, or to do what a test asks."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """A running emulator: what leads the platform's own client to it, and what it would have charged."""

    environ: Mapping[str, str]
    bill: Callable[[], str]
    """A few lines for a person, any time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a container of an image would add to the command and environment that it is started with."""

    argv: Sequence[str] = ()
    """Stands before the command; "python" as its first word is found on the image's PATH."""
    env: Mapping[str, str] = field(default_factory=dict)


class ThreadedServer(ABC):
    """A context manager: serves in a thread, with an event loop of its own, from entering it until leaving it."""

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
        """Let the server's own thread do something, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._running.result()).result(PATIENCE_S)

    @abstractmethod
    async def _serve(self) -> None:
        """Start, `await self._until_over()`, and leave nothing behind."""

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
