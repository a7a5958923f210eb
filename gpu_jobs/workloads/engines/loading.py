"""Loads a model with transformers in the requested precision, or in the best that fits."""

import logging
import re
from collections.abc import Collection
from typing import Any

from gpu_jobs.errors import WorkloadImportError
from gpu_jobs.workloads.batch_size import free_memory, is_out_of_memory
from gpu_jobs.workloads.engines.base import ModelSpec
from gpu_jobs.workloads.engines.precision import (
    PrecisionChoice,
    choose_precision,
    count_params,
    describe_device,
    load_arguments,
    next_lower,
)

_UNUSED = re.compile(r"(^|\.)pooler\.")
"""Weights of an output that is not used here; many encoders are published without them."""


def load_model(spec: ModelSpec, auto: Any) -> tuple[Any, PrecisionChoice]:
    """Load a model with the class `auto`, ready for inference, and return it with its precision.

    If the precision is "auto" and memory runs out while loading, loading is retried with fewer bits.

    Raises:
        WorkloadImportError: the model is damaged or not of that class, or a library is missing.
    """
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it logs a warning for every layer of every call
    choice = choose_precision(spec.precision, count_params(spec.folder), describe_device(spec.device, spec.num_gpus))
    while True:
        arguments = load_arguments(choice.precision, spec.device, spec.num_gpus)
        try:
            model, found = auto.from_pretrained(
                spec.folder, trust_remote_code=spec.trust_remote_code, output_loading_info=True, **arguments
            )
        except (OSError, ValueError, ImportError) as error:
            raise WorkloadImportError(f"model '{spec.name}' cannot be loaded: {error}") from error
        except (RuntimeError, MemoryError) as error:
            lower = next_lower(choice.precision)
            if not is_out_of_memory(error) or spec.precision != "auto" or not lower:
                raise
            choice = PrecisionChoice(lower, f"memory ran out in {choice.precision}")
        else:
            _refuse_random_weights(spec.name, found["missing_keys"])
            return model.eval(), choice
        free_memory()


def _refuse_random_weights(name: str, missing: Collection[str]) -> None:
    """Refuse a model for another task, which transformers loads with random weights in place of missing ones."""
    needed = sorted(key for key in missing if not _UNUSED.search(key))
    if needed:
        raise WorkloadImportError(
            f"model '{name}' cannot do this task: it has no weights for {needed[0]} and {len(needed) - 1} others"
        )
