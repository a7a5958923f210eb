"""Function calls of clients: they spawn calls, ask for results, and cancel."""

import base64
import json
import time
from typing import Any

from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2

from gpu_jobs.emulators.modal.pool import definition_of
from gpu_jobs.emulators.modal.pools import Pools
from gpu_jobs.emulators.modal.records import Call, Input, Records, new_id
from gpu_jobs.emulators.modal.rpc import absent, made

_POLL_S = 55.0


class Calls:
    """Supports one input per call: `.spawn()` and `.remote()`, but not `.map()`."""

    def __init__(self, records: Records, pools: Pools) -> None:
        self._records = records
        self._pools = pools

    async def function_map(self, request: Any, _: Any) -> Any:
        function = self._records.function(request.function_id)
        if self._pools.of(function).is_stopped:
            raise absent("App of this function")
        call = Call(id=new_id("fc"), function=function, invocation=request.function_call_invocation_type)
        self._records.calls[call.id] = call
        accepted = [self._put(call, item) for item in request.pipelined_inputs]
        return made(
            api_pb2.FunctionMapResponse,
            function_call_id=call.id,
            pipelined_inputs=accepted,
            retry_policy=definition_of(function).retry_policy,
            function_call_jwt=_jwt({"call": call.id}),
        )

    def _put(self, call: Call, item: Any) -> Any:
        one = Input(id=new_id("in"), call=call, index=item.idx, payload=item.input)
        call.inputs.append(one)
        self._pools.of(call.function).put(one)
        return made(
            api_pb2.FunctionPutInputsResponseItem,
            idx=item.idx,
            input_id=one.id,
            input_jwt=_jwt({"idx": item.idx, "input": one.id}),
        )

    async def function_get_outputs(self, request: Any, _: Any) -> Any:
        """Wait for outputs. A reply without outputs and without unfinished inputs means that the call has expired."""
        call = self._records.call(request.function_call_id)
        wait_until = time.monotonic() + min(request.timeout, _POLL_S)
        while not (found := self._outputs(call)) and call.num_unfinished and time.monotonic() < wait_until:
            await call.news.wait(wait_until - time.monotonic())
        return made(
            api_pb2.FunctionGetOutputsResponse,
            idxs=[each.idx for each in found],
            outputs=found,
            last_entry_id=str(len(found)),
            num_unfinished_inputs=call.num_unfinished,
        )

    def _outputs(self, call: Call) -> list[Any]:
        return [] if call.is_expired else [each.result for each in call.inputs if each.result is not None]

    async def function_call_cancel(self, request: Any, _: Any) -> Any:
        call = self._records.call(request.function_call_id)
        for one in call.inputs:
            self._pools.of(call.function).cancel(one, must_terminate=request.terminate_containers)
        return Empty()


def _jwt(claims: dict[str, Any]) -> str:
    """Return an unsigned token of three parts, of which the client reads the middle one."""
    parts = [json.dumps(each).encode() for each in ({"alg": "none"}, claims, "")]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
