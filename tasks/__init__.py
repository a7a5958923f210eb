"""Prefect tasks: one call into the library each, and what a person should see of it."""
