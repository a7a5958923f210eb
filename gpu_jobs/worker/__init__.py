"""What runs in the container: a supervisor, which leases and settles, and a compute process, which uses the GPU."""
