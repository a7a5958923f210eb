"""Emulated apps, functions and their parts: the calls that `deploy` and lookups make."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2

from gpu_jobs.emulators.modal.bill import USD_PER_GPU_S
from gpu_jobs.emulators.modal.records import App, FunctionRecord, Records, new_id
from gpu_jobs.emulators.modal.rpc import absent, copied, made

BUILDER_VERSION = "2025.06"


class Apps:
    """Deploys and looks up apps. `redeployed` is called with each published app, `stopped` with each stopped app."""

    def __init__(self, records: Records, redeployed: Callable[[App], None], stopped: Callable[[App], None]) -> None:
        self._records = records
        self._redeployed = redeployed
        self._stopped = stopped

    async def environment_get_or_create(self, request: Any, _: Any) -> Any:
        settings = made(api_pb2.EnvironmentSettings, image_builder_version=BUILDER_VERSION)
        metadata = made(api_pb2.EnvironmentMetadata, name=request.deployment_name or "main", settings=settings)
        return api_pb2.EnvironmentGetOrCreateResponse(environment_id=new_id("en"), metadata=metadata)

    async def app_get_by_deployment_name(self, request: Any, _: Any) -> Any:
        found = [app.id for app in self._records.apps.values() if app.is_deployed and app.name == request.name]
        return made(api_pb2.AppGetByDeploymentNameResponse, app_id=found[0] if found else "")

    async def app_get_or_create(self, request: Any, _: Any) -> Any:
        return made(api_pb2.AppGetOrCreateResponse, app_id=self._records.deployed(request.app_name).id)

    async def app_create(self, request: Any, _: Any) -> Any:
        app = App(id=new_id("ap"), name=request.description)
        self._records.apps[app.id] = app
        return made(api_pb2.AppCreateResponse, app_id=app.id, app_page_url=f"emulator:{app.id}")

    async def app_get_layout(self, request: Any, _: Any) -> Any:
        app = self._app(request.app_id)
        return api_pb2.AppGetLayoutResponse(app_layout=api_pb2.AppLayout(function_ids=app.function_ids))

    async def app_publish(self, request: Any, _: Any) -> Any:
        app = self._app(request.app_id)
        app.name = request.name or app.name
        app.function_ids = dict(request.function_ids)
        app.is_deployed = request.app_state == api_pb2.APP_STATE_DEPLOYED
        app.tags = dict(getattr(request, "tags", {}))
        self._redeployed(app)
        return made(api_pb2.AppPublishResponse, url=f"emulator:{app.name}", deployed_at=time.time())

    async def app_get_tags(self, request: Any, _: Any) -> Any:
        return made(api_pb2.AppGetTagsResponse, tags=self._app(request.app_id).tags)

    async def app_heartbeat(self, _: Any, __: Any) -> Any:
        return Empty()

    async def app_client_disconnect(self, _: Any, __: Any) -> Any:
        return Empty()

    async def app_stop(self, request: Any, _: Any) -> Any:
        app = self._app(request.app_id)
        app.is_deployed = False
        self._stopped(app)
        return Empty()

    async def function_precreate(self, request: Any, _: Any) -> Any:
        function_id = request.existing_function_id or new_id("fu")
        metadata = copied(api_pb2.FunctionHandleMetadata, request)
        metadata.definition_id = new_id("de")
        return api_pb2.FunctionPrecreateResponse(function_id=function_id, handle_metadata=metadata)

    async def function_create(self, request: Any, _: Any) -> Any:
        function_id = request.existing_function_id or new_id("fu")
        ranked = list(request.function_data.ranked_functions)
        definition = ranked[0].function if ranked else request.function
        for each in [definition, *(one.function for one in ranked)]:
            _check_gpu(each.resources)
        data = request.function_data if ranked else copied(api_pb2.FunctionData, definition)
        if not ranked and hasattr(data, "ranked_functions"):
            data.ranked_functions.add(rank=0).function.CopyFrom(definition)
        metadata = copied(api_pb2.FunctionHandleMetadata, definition)
        metadata.definition_id = new_id("de")
        for name, value in (("app_id", request.app_id), ("max_object_size_bytes", 2 << 20)):
            if name in metadata.DESCRIPTOR.fields_by_name:
                setattr(metadata, name, value)
        record = self._records.functions.setdefault(
            function_id,
            FunctionRecord(
                id=function_id,
                app_id=request.app_id,
                definition=definition,
                function_data=data,
                handle_metadata=metadata,
            ),
        )
        record.definition, record.function_data, record.handle_metadata = definition, data, metadata
        return made(
            api_pb2.FunctionCreateResponse,
            function_id=function_id,
            function=definition,
            function_data=data,
            handle_metadata=metadata,
        )

    async def function_get(self, request: Any, _: Any) -> Any:
        app = self._records.deployed(request.app_name)
        if request.object_tag not in app.function_ids:
            raise absent(f"Function '{request.object_tag}' in app '{request.app_name}'")
        record = self._records.function(app.function_ids[request.object_tag])
        return made(
            api_pb2.FunctionGetResponse,
            function_id=record.id,
            handle_metadata=record.handle_metadata,
            function=record.function_data,
        )

    async def function_bind_params(self, request: Any, _: Any) -> Any:
        """Return a variant of a function; equal options give the same variant, and so share containers."""
        base = self._records.function(request.function_id)
        options = request.function_options
        _check_gpu(options.resources)
        same = [each for each in self._records.functions.values() if (each.base_id, each.options) == (base.id, options)]
        record = same[0] if same else replace(base, id=new_id("fu"), base_id=base.id, options=options, pool=None)
        self._records.functions[record.id] = record
        return made(
            api_pb2.FunctionBindParamsResponse, bound_function_id=record.id, handle_metadata=record.handle_metadata
        )

    def _app(self, app_id: str) -> App:
        if app_id not in self._records.apps:
            raise absent(f"App '{app_id}'")
        return self._records.apps[app_id]


class Parts:
    """Images, source files, secrets and volumes. Images are not built; their definitions are only stored."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def image_get_or_create(self, request: Any, _: Any) -> Any:
        image_id = new_id("im")
        self._records.images[image_id] = request.image
        return made(
            api_pb2.ImageGetOrCreateResponse,
            image_id=image_id,
            result=api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS),
            metadata=made(api_pb2.ImageMetadata, image_builder_version=BUILDER_VERSION),
        )

    async def mount_get_or_create(self, request: Any, _: Any) -> Any:
        mount_id = new_id("mo")
        self._records.mounts[mount_id] = {each.filename: each.sha256_hex for each in request.files}
        metadata = made(api_pb2.MountHandleMetadata, content_checksum_sha256_hex=mount_id)
        return made(api_pb2.MountGetOrCreateResponse, mount_id=mount_id, handle_metadata=metadata)

    async def mount_batched_check_existence(self, request: Any, _: Any) -> Any:
        missing = [each for each in request.sha256_hex_hashes if each not in self._records.files]
        return made(api_pb2.MountBatchedCheckExistenceResponse, missing_sha256_hex_hashes=missing)

    async def mount_put_file(self, request: Any, _: Any) -> Any:
        if request.data_blob_id:
            self._records.files[request.sha256_hex] = self._records.blobs[request.data_blob_id]
        elif request.data or request.WhichOneof("data_oneof"):
            self._records.files[request.sha256_hex] = request.data
        return made(api_pb2.MountPutFileResponse, exists=request.sha256_hex in self._records.files)

    async def secret_get_or_create(self, request: Any, _: Any) -> Any:
        values = dict(request.env_dict)
        if request.deployment_name:
            if request.deployment_name not in self._records.named_secrets:
                raise absent(f"Secret '{request.deployment_name}'")
            values = self._records.named_secrets[request.deployment_name]
            if missing := [key for key in request.required_keys if key not in values]:
                raise GRPCError(Status.FAILED_PRECONDITION, f"Secret is missing key(s): {', '.join(missing)}")
        secret_id = new_id("st")
        self._records.secrets[secret_id] = values
        return made(api_pb2.SecretGetOrCreateResponse, secret_id=secret_id)

    async def volume_get_or_create(self, request: Any, _: Any) -> Any:
        return made(
            api_pb2.VolumeGetOrCreateResponse,
            volume_id=new_id("vo"),
            metadata=made(api_pb2.VolumeMetadata, name=request.deployment_name),
        )

    async def volume_commit(self, _: Any, __: Any) -> Any:
        return api_pb2.VolumeCommitResponse()


def _check_gpu(resources: Any) -> None:
    gpu = resources.gpu_config.gpu_type
    if gpu not in USD_PER_GPU_S:
        raise GRPCError(Status.INVALID_ARGUMENT, f"Unknown GPU type: {gpu}")
