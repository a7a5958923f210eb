"""Forecasts of a campaign's cost and finish time, from many simulated campaigns."""
