"""Engines that run a language model: vLLM where it is installed on a GPU, transformers everywhere."""

import importlib.util

from gpu_jobs.errors import WorkloadImportError
from gpu_jobs.workloads.engines.base import Engine, ModelSpec

ENGINES = {
    "vllm": "gpu_jobs.workloads.engines.vllm:VllmEngine",
    "transformers": "gpu_jobs.workloads.engines.transformers:TransformersEngine",
}


def choose_engine(name: str, device: str) -> str:
    """Return `name`, or for "auto" the best engine that is available here."""
    if name != "auto":
        return name
    return "vllm" if device != "cpu" and importlib.util.find_spec("vllm") else "transformers"


def open_engine(name: str, spec: ModelSpec) -> Engine:
    """Load a model into the engine `name`; "auto" chooses one.

    Raises:
        WorkloadImportError: the engine or the model is not available here.
        ModelTooLargeError: the model does not fit into the memory of the device.
    """
    name = choose_engine(name, spec.device)
    module, _, class_name = ENGINES[name].partition(":")
    try:
        engine: Engine = getattr(importlib.import_module(module), class_name)(spec)
    except ImportError as error:
        raise WorkloadImportError(f"engine '{name}' cannot be used here: {error}") from error
    return engine
