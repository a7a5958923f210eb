"""What GPU workers run in on the platforms that rent containers."""
