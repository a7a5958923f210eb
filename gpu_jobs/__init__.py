"""Fanfold's library: split a dataset, run it on GPU workers, settle every item once. No Prefect in here."""

__version__ = "0.1.0"
