"""What runs in the container: a supervisor that leases and settles, and a compute process that holds the device."""
