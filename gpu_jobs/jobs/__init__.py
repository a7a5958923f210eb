"""What may be ordered, at what price, and how it fails."""

from gpu_jobs.jobs.orders import Policy

__all__ = ["Policy"]
