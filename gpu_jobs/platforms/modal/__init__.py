"""Modal."""
