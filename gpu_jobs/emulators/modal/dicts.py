"""Emulates `modal.Dict`, whose keys and values are opaque bytes."""

from collections.abc import AsyncIterator
from typing import Any

from modal_proto import api_pb2

from gpu_jobs.emulators.modal.records import new_id
from gpu_jobs.emulators.modal.rpc import absent, made


class Dicts:
    """All dicts. Entries never expire, while the real service drops an entry after a week without use."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._entries: dict[str, dict[bytes, bytes]] = {}

    async def dict_get_or_create(self, request: Any, _: Any) -> Any:
        name = request.deployment_name
        if name not in self._ids:
            if request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
                raise absent(f"Dict '{name}'")
            self._ids[name] = new_id("di")
            self._entries[self._ids[name]] = {}
        return made(
            api_pb2.DictGetOrCreateResponse,
            dict_id=self._ids[name],
            metadata=made(api_pb2.DictMetadata, name=name),
        )

    async def dict_update(self, request: Any, _: Any) -> Any:
        entries = self._entries[request.dict_id]
        created = False
        for update in request.updates:
            if not (request.if_not_exists and update.key in entries):
                created = True
                entries[update.key] = update.value
        return made(api_pb2.DictUpdateResponse, created=created)

    async def dict_get(self, request: Any, _: Any) -> Any:
        value = self._entries[request.dict_id].get(request.key)
        return api_pb2.DictGetResponse(found=value is not None, value=value)

    async def dict_pop(self, request: Any, _: Any) -> Any:
        value = self._entries[request.dict_id].pop(request.key, None)
        return api_pb2.DictPopResponse(found=value is not None, value=value)

    async def dict_contents(self, request: Any, _: Any) -> AsyncIterator[Any]:
        for key, value in list(self._entries[request.dict_id].items()):
            yield api_pb2.DictEntry(key=key if request.keys else b"", value=value if request.values else b"")
