"""REST v2 over HTTP: quota, keys, scripted faults and validation; `World` carries the requests out."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from gpu_jobs.emulators.runpod.bodies import CreateEndpoint, CreatePod, PodAction, parsed
from gpu_jobs.emulators.runpod.errors import ApiError
from gpu_jobs.emulators.runpod.script import Fault
from gpu_jobs.emulators.runpod.world import World

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_NO_CONTENT = 204


class Rest:
    """The routes of `/v2`, and the checks and faults of all requests."""

    def __init__(self, world: World, calls: list[str]) -> None:
        self._world = world
        self._calls = calls

    def add_to(self, app: web.Application) -> None:
        app.middlewares.append(self._guard)
        app.router.add_get("/v2/pods", self._list_pods)
        app.router.add_post("/v2/pods", self._create_pod)
        app.router.add_get("/v2/pods/{id}", self._get_pod)
        app.router.add_delete("/v2/pods/{id}", self._delete_pod)
        app.router.add_post("/v2/pods/{id}/action", self._act)
        app.router.add_get("/v2/catalog/gpus", self._list_gpus)
        app.router.add_get("/v2/network-volumes/{id}", self._get_volume)
        app.router.add_get("/v2/serverless", self._list_endpoints)
        app.router.add_post("/v2/serverless", self._create_endpoint)
        app.router.add_delete("/v2/serverless/{id}", self._delete_endpoint)
        app.router.add_get("/v2/serverless/{id}/workers", self._list_workers)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._calls.append(f"{request.method} {request.path}")
        fault = self._world.script.take(request.method, request.path)
        await asyncio.sleep(fault.latency_s)
        if fault.request_is_lost:
            raise _dropped(request)
        if fault.status:
            return _scripted(fault)
        try:
            if request.path.startswith("/v2/"):
                self._world.count_request()
            reply = await handler(request)
            if fault.is_doubled:
                await handler(request)
        except ApiError as error:
            reply = self._problem(error)
        if fault.reply_is_lost:
            raise _dropped(request)
        return reply

    def _problem(self, error: ApiError) -> web.Response:
        headers = {"Retry-After": f"{self._world.retry_after_s:.0f}"} if error.status == 429 else {}  # noqa: PLR2004
        body: dict[str, Any] = {"title": "Error", "status": error.status, "detail": str(error)}
        if error.errors:
            body["errors"] = list(error.errors)
        return web.json_response(body, status=error.status, headers=headers, content_type="application/problem+json")

    async def _list_pods(self, request: web.Request) -> web.Response:
        self._authorise(request, "list")
        return web.json_response(self._world.list_pods(request.query.get("cursor", "")))

    async def _create_pod(self, request: web.Request) -> web.Response:
        self._authorise(request, "create")
        return web.json_response(self._world.create_pod(await parsed(request, CreatePod)), status=201)

    async def _get_pod(self, request: web.Request) -> web.Response:
        self._authorise(request, "read")
        return web.json_response(self._world.get_pod(request.match_info["id"]))

    async def _delete_pod(self, request: web.Request) -> web.Response:
        self._authorise(request, "terminate")
        self._world.delete_pod(request.match_info["id"])
        return web.Response(status=_NO_CONTENT)

    async def _act(self, request: web.Request) -> web.Response:
        body = await parsed(request, PodAction)
        self._authorise(request, body.action)
        return web.json_response(await self._world.act(request.match_info["id"], body))

    async def _list_gpus(self, request: web.Request) -> web.Response:
        self._authorise(request, "list")
        return web.json_response({"gpus": self._world.catalog()})

    async def _get_volume(self, request: web.Request) -> web.Response:
        self._authorise(request, "read")
        return web.json_response(self._world.volume(request.match_info["id"]))

    async def _list_endpoints(self, request: web.Request) -> web.Response:
        self._authorise(request, "list")
        return web.json_response(self._world.list_endpoints(request.query.get("cursor", "")))

    async def _create_endpoint(self, request: web.Request) -> web.Response:
        self._authorise(request, "create")
        return web.json_response(self._world.create_endpoint(await parsed(request, CreateEndpoint)), status=201)

    async def _delete_endpoint(self, request: web.Request) -> web.Response:
        self._authorise(request, "terminate")
        self._world.delete_endpoint(request.match_info["id"])
        return web.Response(status=_NO_CONTENT)

    async def _list_workers(self, request: web.Request) -> web.Response:
        self._authorise(request, "list")
        return web.json_response(self._world.endpoint(request.match_info["id"]).workers)

    def _authorise(self, request: web.Request, action: str) -> None:
        pod = request.match_info.get("id", "")
        self._world.authorise(request.headers.get("Authorization", ""), action, pod)


def _scripted(fault: Fault) -> web.Response:
    headers: Mapping[str, str] = {"Retry-After": fault.retry_after} if fault.retry_after else {}
    if fault.html:
        return web.Response(status=fault.status, text=fault.html, content_type="text/html", headers=headers)
    body = {"title": "Error", "status": fault.status, "detail": fault.detail}
    return web.json_response(body, status=fault.status, headers=headers, content_type="application/problem+json")


def _dropped(request: web.Request) -> asyncio.CancelledError:
    """Close the connection without a reply."""
    if request.transport is not None:
        request.transport.abort()
    return asyncio.CancelledError()
