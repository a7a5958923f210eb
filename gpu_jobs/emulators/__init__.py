"""Loopback servers that the platforms' own clients talk to, for tests and rehearsals without an account."""
