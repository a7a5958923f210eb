"""The old place of `collect`, kept for code that imports it from here; import it from `gpu_jobs.campaign` instead."""

from gpu_jobs.campaign import collect

__all__ = ["collect"]
