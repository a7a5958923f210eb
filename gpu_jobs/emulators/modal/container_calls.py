"""The calls that containers make."""

from typing import Any

from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2

from gpu_jobs.emulators.modal.container import Container
from gpu_jobs.emulators.modal.rpc import made


class ContainerCalls:
    """Gives inputs to containers, and takes their results."""

    async def container_hello(self, _: Any, __: Container) -> Any:
        return Empty()

    async def container_heartbeat(self, _: Any, container: Container) -> Any:
        ids = await container.cancellations()
        reply = api_pb2.ContainerHeartbeatResponse()
        if ids:
            reply.cancel_input_event.input_ids.extend(ids)
        return reply

    async def function_get_inputs(self, _: Any, container: Container) -> Any:
        one = await container.pool.take(container)
        if one is None:
            return api_pb2.FunctionGetInputsResponse(inputs=[api_pb2.FunctionGetInputsItem(kill_switch=True)])
        item = made(
            api_pb2.FunctionGetInputsItem,
            input_id=one.id,
            input=one.payload,
            function_call_id=one.call.id,
            function_call_invocation_type=one.call.invocation,
            retry_count=one.num_retries,
        )
        return api_pb2.FunctionGetInputsResponse(inputs=[item])

    async def function_put_outputs(self, request: Any, container: Container) -> Any:
        for output in request.outputs:
            one = container.held.get(output.input_id)
            if one is not None:
                container.release(one)
                container.pool.settle(one, output.result, output.data_format)
        return Empty()

    async def task_result(self, request: Any, container: Container) -> Any:
        container.task_result = request.result
        return Empty()
