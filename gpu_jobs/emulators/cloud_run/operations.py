"""Long-running operations, which clients poll."""

import itertools
from typing import Any

from google.longrunning import operations_pb2

_numbers = itertools.count(1)


def pending(resource_name: str, metadata: Any) -> operations_pb2.Operation:
    """Return an operation that is not done and carries the resource as metadata."""
    place = "/".join(resource_name.split("/")[:4])
    operation = operations_pb2.Operation(name=f"{place}/operations/{next(_numbers):08d}")
    operation.metadata.Pack(type(metadata).pb(metadata))
    return operation


def done(resource_name: str, resource: Any) -> operations_pb2.Operation:
    operation = pending(resource_name, resource)
    finish(operation, resource)
    return operation


def failed(parent: str, code: int, message: str) -> operations_pb2.Operation:
    operation = operations_pb2.Operation(name=f"{parent}/operations/{next(_numbers):08d}", done=True)
    operation.error.code, operation.error.message = code, message
    return operation


def finish(operation: operations_pb2.Operation, resource: Any) -> None:
    """Mark an operation as done. The operation of a cancelled execution, too, ends without an error."""
    operation.metadata.Pack(type(resource).pb(resource))
    operation.response.Pack(type(resource).pb(resource))
    operation.done = True
