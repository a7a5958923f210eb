"""What can be ordered, at what price, and how it can fail."""

from gpu_jobs.jobs.orders import Policy

__all__ = ["Policy"]
