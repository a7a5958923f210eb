"""Loads a workload: a built-in one by its name, or a user's own class as `package.module:Class`."""

import importlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from gpu_jobs.errors import RefusedError, WorkloadImportError
from gpu_jobs.workloads.base import BaseWorkload

BUILT_IN = {
    "video": "gpu_jobs.workloads.video.workload:Video",
    "generate": "gpu_jobs.workloads.text.generate:Generate",
    "embed": "gpu_jobs.workloads.text.encode:Embed",
    "classify": "gpu_jobs.workloads.text.encode:Classify",
    "openai-batch": "gpu_jobs.workloads.text.openai_batch:OpenAIBatch",
    "prepare": "gpu_jobs.workloads.training.prepare:Prepare",
    "fine_tune": "gpu_jobs.workloads.training.fine_tune:FineTune",
    "noop": "gpu_jobs.workloads.noop:Noop",
}


def load_workload(name: str, params: Mapping[str, Any]) -> BaseWorkload:
    """Import a workload and validate its parameters.

    Raises:
        WorkloadImportError: the code is not installed here, or its import fails.
        RefusedError: the name is unknown, the class is no workload, or a parameter is invalid.
    """
    path = BUILT_IN.get(name, name)
    module_name, colon, class_name = path.partition(":")
    if not colon:
        raise RefusedError("workload", f"'{name}' is unknown; use one of {sorted(BUILT_IN)} or 'package.module:Class'")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise WorkloadImportError(f"workload '{name}' cannot be imported here: {error}") from error
    if not (isinstance(found, type) and issubclass(found, BaseWorkload)):
        raise RefusedError("workload", f"'{path}' is neither a Workload nor a LongWorkload of gpu_jobs.workloads.base")
    try:
        return found(found.params_model.model_validate(dict(params)))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(("params", *map(str, first["loc"])))
        raise RefusedError(field, f"{first['msg']}, got {first['input']!r}") from error
