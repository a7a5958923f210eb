"""Modal's offers, and the options with which a GPU job asks for its machine. Pure."""

import math
from dataclasses import replace
from datetime import datetime
from typing import TypedDict

from gpu_jobs.errors import RefusedError
from gpu_jobs.jobs.offers import Offer, offers_of
from gpu_jobs.jobs.orders import Order
from gpu_jobs.platforms.modal.app import cores, memory_mib
from gpu_jobs.platforms.modal.settings import ModalSettings

_FIELD = "FANFOLD_MODAL_GPUS"
_MAX_GPUS = 8
_FEWER_GPUS = {"A10": 4}
"""GPU types of which a container can have fewer than `_MAX_GPUS`: modal.com/docs/guide/gpu."""
_CAP_HOURS = 24
"""Hours after which Modal kills a function call."""
_MARGIN_HOURS = 0.5


class Options(TypedDict, total=False):
    """Options of `Function.with_options`. Equal options share containers, so they contain nothing of an order."""

    gpu: str
    cpu: tuple[float, float]
    memory: tuple[int, int]
    timeout: int
    max_containers: int


def offers_in(settings: ModalSettings) -> list[Offer]:
    """One offer for each entry of the setting `gpus`; a list of fallbacks has the price of its most expensive GPU.

    Raises:
        RefusedError: an entry is not a GPU that Modal has.
    """
    return [_offer(entry.replace(" ", ""), settings) for entry in settings.gpus]


def options(order: Order, settings: ModalSettings, now: datetime) -> Options:
    """Options for an order. The timeout, in whole hours, is only a safety net: GPU workers end at the expiry."""
    offer = order.offer
    left_hours = math.ceil((order.expires_at - now).total_seconds() / 3600 + _MARGIN_HOURS / 2)
    wanted = Options(timeout=3600 * min(_CAP_HOURS, max(1, left_hours)), max_containers=settings.max_containers)
    if "," in offer.gpu:
        return wanted  # its GPUs were fixed when it was deployed
    wanted["gpu"] = offer.gpu if offer.num_gpus == 1 else f"{offer.gpu}:{offer.num_gpus}"
    wanted["cpu"] = cores(offer.num_gpus)
    wanted["memory"] = memory_mib(offer.num_gpus)
    return wanted


def _offer(entry: str, settings: ModalSettings) -> Offer:
    parts = [_listed(each) for each in entry.split(",")]
    if len({part.num_gpus for part in parts}) > 1:
        raise RefusedError(_FIELD, f"'{entry}': all of a list must have the same number of GPUs")
    most_expensive = max(parts, key=lambda part: part.usd_per_hour)
    return replace(
        most_expensive,
        gpu=entry if len(parts) > 1 else most_expensive.gpu,
        region=settings.region or most_expensive.region,
        speed=min(part.speed for part in parts),
        gpu_memory_gib=min(part.gpu_memory_gib for part in parts),
        max_workers=settings.max_containers,
        max_alive=settings.max_containers,
        max_hours=_CAP_HOURS - _MARGIN_HOURS,
        idle_s=float(settings.scaledown_s),
    )


def _listed(entry: str) -> Offer:
    """The offer for an entry such as "A100-80GB:4"; the listed price is for one GPU and is multiplied."""
    name, _, digits = entry.partition(":")
    known = {offer.gpu: offer for offer in offers_of("modal") if offer.num_gpus == 1}
    num_gpus = int(digits or "1") if (digits or "1").isdecimal() else 0
    most = _FEWER_GPUS.get(name, _MAX_GPUS)
    if name not in known or not 1 <= num_gpus <= most:
        raise RefusedError(_FIELD, f"'{entry}' is none of {', '.join(known)}, nor up to {most} of them, as L4:2")
    one = known[name]
    return replace(one, num_gpus=num_gpus, usd_per_hour=one.usd_per_hour * num_gpus)
