"""What GPU workers run in on the platforms that rent containers."""
"""What a platform starts first in its container; each of them ends in `gpu_jobs.worker`."""
