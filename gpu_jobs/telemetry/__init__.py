"""What GPU workers measured."""
