"""Turns the dataset that a caller names into sources that can be read."""
