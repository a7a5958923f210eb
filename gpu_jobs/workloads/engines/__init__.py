"""What runs a language model: vLLM where it is installed and the device is a GPU, transformers everywhere."""

import importlib.util

from gpu_jobs.errors import WorkloadImportError
from gpu_jobs.workloads.engines.base import Engine, ModelSpec

ENGINES = {
    "vllm": "gpu_jobs.workloads.engines.vllm:VllmEngine",
    "transformers": "gpu_jobs.workloads.engines.transformers:TransformersEngine",
}


def open_engine(name: str, spec: ModelSpec) -> Engine:
    """Load a model into the engine of that name; `auto` chooses.

    Raises:
        WorkloadImportError: the engine or the model is not here, or the model does not fit.
    """
    if name == "auto":
        name = "vllm" if spec.device != "cpu" and importlib.util.find_spec("vllm") else "transformers"
    module, _, class_name = ENGINES[name].partition(":")
    try:
        engine: Engine = getattr(importlib.import_module(module), class_name)(spec)
    except ImportError as error:
        raise WorkloadImportError(f"engine '{name}' cannot be used here: {error}") from error
    return engine
