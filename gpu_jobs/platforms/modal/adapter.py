"""GPU workers as function calls of a deployed Modal app: one `spawn` for each.

A spawned call has no name. So a `modal.Dict`, the register, records which call is which GPU worker of which order.
`start` writes it after each spawn, and a GPU worker writes it when it starts: a call whose reply was lost, or whose
orchestrator died, is found as soon as it costs money. Of two calls for one slot the ledger's `bound` lets one work.
"""

import asyncio
import time
from collections.abc import Awaitable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import modal
from modal import exception

from gpu_jobs.errors import NoCapacityError, OutcomeUnknownError, RejectedError
from gpu_jobs.jobs.offers import GRACE_S, Offer
from gpu_jobs.jobs.orders import Handle, Observation, Order
from gpu_jobs.platforms.modal.api import AbsentError, open_client, translate
from gpu_jobs.platforms.modal.app import function_name
from gpu_jobs.platforms.modal.calls import ENDS, CallEnd, end_of_error, end_of_value, observation
from gpu_jobs.platforms.modal.deploy import deploy_once
from gpu_jobs.platforms.modal.offers import offers_in, options
from gpu_jobs.platforms.modal.settings import ModalSettings
from gpu_jobs.platforms.modal.worker import REGISTER, Entry

STOP_GRACE_S = GRACE_S
"""Seconds between asking GPU workers to end, so that they settle their chunks, and killing their containers."""
_DEADLINE_S = 60.0
"""Seconds that one call to Modal may take, with the retries of Modal's client."""
_FIND_LAG_S = 180.0
"""After a lost reply, the GPU worker is found only when it starts, and its image may have to be pulled before."""
_KEEP_S = 3600.0
"""Seconds after which `list_owned` removes a finished GPU job from the register."""
_MAX_CALLS = 8
ResultT = TypeVar("ResultT")
Entries = dict[str, Entry]
"""The register's entries of one order, by slot."""


class ModalPlatform:
    """Implements `Platform`. A handle's id is the order's name: the register knows the function calls.

    Raises:
        RefusedError: a setting is wrong.
    """

    name = "modal"

    def __init__(
        self, settings: ModalSettings | None = None, *, deadline_s: float = _DEADLINE_S, find_lag_s: float = _FIND_LAG_S
    ) -> None:
        self._settings = settings or ModalSettings()
        self._offers = offers_in(self._settings)
        self._deadline_s = deadline_s
        self.find_lag_s = find_lag_s
        self._client: modal.Client | None = None
        self._ends: dict[str, CallEnd] = {}
        """How calls ended, by call id: Modal forgets it after a week."""
        self._asked_at: dict[str, float] = {}
        self._killed: set[str] = set()

    def offers(self) -> Sequence[Offer]:
        return self._offers

    async def start(self, order: Order) -> Handle:
        try:
            function = await self._function(order)
        except OutcomeUnknownError as error:
            raise NoCapacityError(f"nothing was started: {error}") from error
        register = await self._register()
        calls: dict[str, str] = {}
        try:
            for slot in range(order.num_workers):
                worker_id = f"{order.name}.{slot}"
                call = await self._call("spawn", function.spawn.aio(order.campaign_uri, worker_id))
                calls[worker_id] = call.object_id
                entry = Entry(call_id=call.object_id, has_started=False, at=time.time())
                await self._call("register", register.put.aio(worker_id, entry, skip_if_exists=True))
        except (NoCapacityError, RejectedError):
            for worker_id, call_id in calls.items():
                await self._cancel(call_id, must_terminate=True)
                await self._unregister(worker_id)
            raise
        return self._handle(order.name)

    async def find(self, name: str) -> Handle | None:
        return self._handle(name) if name in await self._registered() else None

    async def observe(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        registered = await self._registered() if handles else {}
        seen = await self._observe([registered.get(handle.order, {}) for handle in handles])
        return dict(zip(handles, seen, strict=True))

    async def stop(self, handle: Handle) -> None:
        """Cancel the calls, so that GPU workers settle; if asked again after the grace period, kill containers."""
        for entry in (await self._registered()).get(handle.order, {}).values():
            call_id = entry["call_id"]
            if call_id in self._ends or call_id in self._killed:
                continue
            if call_id not in self._asked_at:
                await self._cancel(call_id, must_terminate=False)
                self._asked_at[call_id] = time.monotonic()
            elif time.monotonic() - self._asked_at[call_id] > STOP_GRACE_S:
                await self._cancel(call_id, must_terminate=True)
                self._killed.add(call_id)

    async def list_owned(self, prefix: str) -> Sequence[Handle]:
        registered = {order: each for order, each in (await self._registered()).items() if order.startswith(prefix)}
        seen = dict(zip(registered, await self._observe(list(registered.values())), strict=True))
        for order, entries in registered.items():
            if seen[order].phase.is_over and time.time() - max(each["at"] for each in entries.values()) > _KEEP_S:
                for slot in entries:
                    await self._unregister(f"{order}.{slot}")
        return [self._handle(order) for order in registered if not seen[order].phase.is_over]

    async def _observe(self, jobs: Sequence[Entries]) -> list[Observation]:
        limit = asyncio.Semaphore(_MAX_CALLS)

        async def end(call_id: str) -> CallEnd | None:
            if call_id not in self._ends:
                async with limit:
                    found = await self._look(call_id)
                if found is None:
                    return None
                self._ends[call_id] = found
            return self._ends[call_id]

        async def one(entries: Entries) -> Observation:
            ends = await asyncio.gather(*(end(entry["call_id"]) for entry in entries.values()))
            return observation(ends, num_started=sum(entry["has_started"] for entry in entries.values()))

        return await asyncio.gather(*map(one, jobs))

    async def _look(self, call_id: str) -> CallEnd | None:
        """How a call ended; None while it runs or waits."""
        call = modal.FunctionCall.from_id(call_id, client=await self._opened())
        with translate("poll"):
            try:
                async with asyncio.timeout(self._deadline_s) as deadline:
                    value: Any = await call.get.aio(timeout=0)
            except TimeoutError:
                if deadline.expired():
                    raise
                return None  # Modal's way to say that the call is not over
            except ENDS as error:
                return end_of_error(error)
            except exception.Error:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the code in the container raised
                return end_of_error(error)
        return end_of_value(value)

    async def _cancel(self, call_id: str, *, must_terminate: bool) -> None:
        call = modal.FunctionCall.from_id(call_id, client=await self._opened())
        with suppress(AbsentError):
            await self._call("cancel", call.cancel.aio(terminate_containers=must_terminate))

    async def _function(self, order: Order) -> Any:
        client = await self._opened()
        await deploy_once(self._settings, client)
        function: Any = modal.Function.from_name(self._settings.app, function_name(order.offer.gpu), client=client)
        variant: Any = function.with_options(**options(order, self._settings, datetime.now(UTC)))
        await self._call(f"looking for the function of '{self._settings.app}'", variant.hydrate.aio())
        return variant

    async def _register(self) -> Any:
        return modal.Dict.from_name(REGISTER, create_if_missing=True, client=await self._opened())

    async def _registered(self) -> dict[str, Entries]:
        """The register's entries of all orders."""
        found: dict[str, Entries] = {}
        register = await self._register()
        with translate("register"):
            async with asyncio.timeout(self._deadline_s):
                async for worker_id, entry in register.items.aio():
                    order, _, slot = worker_id.rpartition(".")
                    found.setdefault(order, {})[slot] = entry
        return found

    async def _unregister(self, worker_id: str) -> None:
        with suppress(KeyError):
            await self._call("register", (await self._register()).pop.aio(worker_id))

    async def _call(self, what: str, awaitable: Awaitable[ResultT]) -> ResultT:
        with translate(what):
            async with asyncio.timeout(self._deadline_s):
                return await awaitable

    async def _opened(self) -> modal.Client:
        if self._client is None:
            self._client = await open_client(self._settings)
        return self._client

    def _handle(self, order: str) -> Handle:
        return Handle(platform=self.name, order=order, id=order)
