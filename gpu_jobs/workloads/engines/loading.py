"""Load a model by transformers in the precision that was asked for, or the best that fits."""

import logging
import re
from collections.abc import Collection
from typing import Any

from gpu_jobs.errors import WorkloadImportError
from gpu_jobs.workloads.batch_size import free_memory, is_out_of_memory
from gpu_jobs.workloads.engines.base import ModelSpec
from gpu_jobs.workloads.engines.precision import Choice, choose, count_params, load_arguments, look_at, next_lower

_UNUSED = re.compile(r"(^|\.)pooler\.")
"""Weights that make what nobody here looks at; many encoders come without."""


def load_model(spec: ModelSpec, auto: Any) -> tuple[Any, Choice]:
    """A model of the class `auto`, ready to infer, and the precision that it has.

    Where the precision is `auto` and memory runs out while loading, it is tried again with less bits.

    Raises:
        WorkloadImportError: it cannot be loaded: not a model of that kind, damaged, or a library is missing.
    """
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns in every layer of every call
    choice = choose(spec.precision, count_params(spec.folder), look_at(spec.device, spec.num_gpus))
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
            choice = Choice(lower, f"memory ran out in {choice.precision}")
        else:
            _refuse_random_weights(spec.name, found["missing_keys"])
            return model.eval(), choice
        free_memory()


def _refuse_random_weights(name: str, missing: Collection[str]) -> None:
    """A model for another task is loaded all the same, with weights by chance where it has none."""
    needed = sorted(key for key in missing if not _UNUSED.search(key))
    if needed:
        raise WorkloadImportError(
            f"model '{name}' cannot do this task: it has no weights for {needed[0]} and {len(needed) - 1} others"
        )
