"""Emulated blobs: large arguments, results and source files, over HTTP."""

import hashlib
from typing import Any

from aiohttp import web
from modal_proto import api_pb2

from gpu_jobs.emulators.modal.records import Records, new_id
from gpu_jobs.emulators.modal.rpc import absent, made

_MAX_BYTES = 1 << 30


class Blobs:
    """Stores blobs, which are uploaded in one piece of up to 1 GiB."""

    def __init__(self, records: Records) -> None:
        self._blobs = records.blobs
        self._runner: web.AppRunner | None = None
        self._url = ""

    async def start(self, host: str) -> None:
        app = web.Application(client_max_size=_MAX_BYTES)
        app.add_routes([web.put("/{id}", self._put), web.get("/{id}", self._get)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, 0)
        await site.start()
        self._url = f"http://{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def blob_create(self, _: Any, __: Any) -> Any:
        blob_id = new_id("bl")
        url = f"{self._url}/{blob_id}"
        return made(
            api_pb2.BlobCreateResponse,
            blob_id=blob_id,
            upload_url=url,
            blob_ids=[blob_id],
            upload_urls=made(api_pb2.UploadUrlList, items=[url]),
        )

    async def blob_get(self, request: Any, _: Any) -> Any:
        if request.blob_id not in self._blobs:
            raise absent(f"Blob '{request.blob_id}'")
        return made(api_pb2.BlobGetResponse, download_url=f"{self._url}/{request.blob_id}")

    async def _put(self, request: web.Request) -> web.Response:
        body = await request.read()
        self._blobs[request.match_info["id"]] = body
        return web.Response(headers={"ETag": hashlib.md5(body).hexdigest()})  # noqa: S324 - as S3 answers

    async def _get(self, request: web.Request) -> web.Response:
        return web.Response(body=self._blobs[request.match_info["id"]])
