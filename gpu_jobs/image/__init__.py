"""What GPU workers run in on the platforms that rent containers; each ends in `gpu_jobs.worker`."""
