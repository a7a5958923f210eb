"""Prefect tasks: each makes one call into the library and shows people the result."""
