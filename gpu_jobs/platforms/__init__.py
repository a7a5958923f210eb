"""Where GPU workers run: `open_platform` turns a name into an adapter."""

import importlib

from gpu_jobs.platforms.base import Platform

ADAPTERS = {
    "local": "gpu_jobs.platforms.local:LocalPlatform",
    "runpod": "gpu_jobs.platforms.runpod:RunPodPlatform",
}


def open_platform(name: str) -> Platform:
    """Import and open one adapter, a key of `ADAPTERS`; its vendor's package is imported here, not before."""
    module_name, _, class_name = ADAPTERS[name].partition(":")
    platform: Platform = getattr(importlib.import_module(module_name), class_name)()
    return platform
