"""Where GPU workers run: `open_platform` turns a name into an adapter."""

import importlib
from collections.abc import Iterator
from typing import Any

from gpu_jobs.errors import RefusedError
from gpu_jobs.platforms.base import Check, Platform

ADAPTERS = {
    "local": "gpu_jobs.platforms.local:LocalPlatform",
    "cloud_run": "gpu_jobs.platforms.cloud_run.adapter:CloudRunPlatform",
    "modal": "gpu_jobs.platforms.modal.adapter:ModalPlatform",
    "runpod": "gpu_jobs.platforms.runpod.adapter:RunPodPlatform",
}

DOCTORS = {
    "cloud_run": "gpu_jobs.platforms.cloud_run.doctor:checks",
    "modal": "gpu_jobs.platforms.modal.doctor:checks",
    "runpod": "gpu_jobs.platforms.runpod.doctor:checks",
}
"""What says whether a platform can be used: a function of the store root that yields `Check`s."""


def open_platform(name: str) -> Platform:
    """Import and open one adapter, a key of `ADAPTERS`; its vendor's package is imported here, not before.

    Raises:
        RefusedError: that package is not installed; or as the adapter says.
    """
    platform: Platform = _load(name, ADAPTERS[name])()
    return platform


def checks(name: str, store_root: str) -> Iterator[Check]:
    """What the doctor of a platform, a key of `DOCTORS`, finds one after the other. Raises as `open_platform`."""
    found: Iterator[Check] = _load(name, DOCTORS[name])(store_root)
    return found


def _load(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        if (error.name or "").startswith("gpu_jobs"):
            raise
        extra = name.replace("_", "-")
        raise RefusedError(name, f"its packages are missing: pip install 'fanfold[{extra}]' ({error})") from error
