"""Where GPU workers run: `open_platform` turns a name into an adapter."""

import importlib

from gpu_jobs.errors import RefusedError
from gpu_jobs.platforms.base import Platform

ADAPTERS = {"local": "gpu_jobs.platforms.local:LocalPlatform"}


def open_platform(name: str) -> Platform:
    """Import and open one adapter; its vendor's package is imported here, not before."""
    if name not in ADAPTERS:
        raise RefusedError("platforms", f"'{name}' is unknown; use one of {sorted(ADAPTERS)}")
    module_name, _, class_name = ADAPTERS[name].partition(":")
    platform: Platform = getattr(importlib.import_module(module_name), class_name)()
    return platform
