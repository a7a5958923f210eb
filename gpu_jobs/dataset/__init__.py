"""From what the caller names to sources that can be read."""
