"""The queue's API over HTTP, for clients and for workers with RunPod's SDK."""

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from gpu_jobs.emulators.runpod.bodies import RunJob, parsed
from gpu_jobs.emulators.runpod.errors import ApiError

if TYPE_CHECKING:
    from gpu_jobs.emulators.runpod.endpoints import Endpoint
    from gpu_jobs.emulators.runpod.world import World

PREFIX = "/ai/v2/{endpoint}"
_NO_CONTENT = 204


class Queue:
    """The routes below `/ai/v2`. At RunPod they are on a separate host, below `/v2`."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def add_to(self, app: web.Application) -> None:
        app.router.add_post(f"{PREFIX}/run", self._run)
        app.router.add_get(f"{PREFIX}/status/{{job}}", self._status)
        app.router.add_post(f"{PREFIX}/cancel/{{job}}", self._cancel)
        app.router.add_get(f"{PREFIX}/health", self._health)
        app.router.add_get(f"{PREFIX}/job-take/{{worker}}", self._take)
        app.router.add_get(f"{PREFIX}/job-stop/{{worker}}", self._stops)
        app.router.add_post(f"{PREFIX}/job-done/{{worker}}/{{job}}", self._done)
        app.router.add_post(f"{PREFIX}/job-stream/{{worker}}/{{job}}", self._ignored)
        app.router.add_get(f"{PREFIX}/ping/{{worker}}", self._ignored)

    async def _run(self, request: web.Request) -> web.Response:
        body = await parsed(request, RunJob)
        job = self._endpoint(request).run(body.input, body.policy)
        return web.json_response({"id": job.id, "status": job.status})

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(self._endpoint(request).status(request.match_info["job"]).resource)

    async def _cancel(self, request: web.Request) -> web.Response:
        return web.json_response(self._endpoint(request).cancel(request.match_info["job"]).resource)

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response(self._endpoint(request).health)

    async def _take(self, request: web.Request) -> web.Response:
        job = await self._endpoint(request).take(request.match_info["worker"], self._world.long_poll_s)
        if job is None:
            return web.Response(status=_NO_CONTENT)
        return web.json_response({"id": job.id, "input": job.input})

    async def _stops(self, request: web.Request) -> web.Response:
        found = await self._endpoint(request).stops(request.match_info["worker"], self._world.long_poll_s)
        return web.json_response({"jobsToStop": found}) if found else web.Response(status=_NO_CONTENT)

    async def _done(self, request: web.Request) -> web.Response:
        """Handle a result; its body is JSON, whatever its content type says."""
        result: dict[str, Any] = json.loads(await request.read())
        self._endpoint(request).done(request.match_info["worker"], request.match_info["job"], result)
        return web.json_response({})

    async def _ignored(self, _: web.Request) -> web.Response:
        """Ignore pings: they come from a separate process and do not show that the worker works."""
        return web.json_response({})

    def _endpoint(self, request: web.Request) -> "Endpoint":
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if key != self._world.key:
            raise ApiError(401, "Invalid API key")
        return self._world.endpoint(request.match_info["endpoint"])
