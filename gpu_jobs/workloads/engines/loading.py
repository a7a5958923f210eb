"""Load a model by transformers in the precision that was asked for, or the best that fits."""

from typing import Any

from gpu_jobs.errors import WorkloadImportError
from gpu_jobs.workloads.batches import free_memory, is_out_of_memory
from gpu_jobs.workloads.engines.base import ModelSpec
from gpu_jobs.workloads.precision import Choice, choose, count_params, load_arguments, look_at, next_lower


def load_model(spec: ModelSpec, auto: Any) -> tuple[Any, Choice]:
    """A model of the class `auto`, ready to infer, and the precision that it has.

    Where the precision is `auto` and memory runs out while loading, it is tried again with less bits.

    Raises:
        WorkloadImportError: it cannot be loaded: not a model of that kind, damaged, or a library is missing.
    """
    from transformers import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    choice = choose(spec.precision, count_params(spec.folder), look_at(spec.device, spec.num_gpus))
    while True:
        arguments = load_arguments(choice.precision, spec.device, spec.num_gpus)
        try:
            model = auto.from_pretrained(spec.folder, trust_remote_code=spec.trust_remote_code, **arguments)
            return model.eval(), choice
        except (OSError, ValueError, ImportError) as error:
            raise WorkloadImportError(f"model '{spec.name}' cannot be loaded: {error}") from error
        except (RuntimeError, MemoryError) as error:
            lower = next_lower(choice.precision)
            if not is_out_of_memory(error) or spec.precision != "auto" or not lower:
                raise
            choice = Choice(lower, f"memory ran out in {choice.precision}")
        free_memory()
