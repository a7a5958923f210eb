"""Dollars, by an offer's hourly price. Pure."""

from datetime import datetime

from gpu_jobs.jobs import Order
from gpu_jobs.offers import Offer


def worst_case_usd(offer: Offer, num_workers: int, hours: float) -> float:
    """What a GPU job can cost at most: all its GPU workers, for all the time that it may last."""
    return num_workers * offer.usd_per_hour * hours


def spent_usd(order: Order, since: datetime, until: datetime) -> float:
    """What a GPU job has cost from its order on; an estimate, since a platform bills by rules of its own."""
    hours = max(0.0, (until - since).total_seconds() / 3600)
    return worst_case_usd(order.offer, order.num_workers, hours)
