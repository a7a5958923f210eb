"""What GPUs cost on Modal, and how a GPU job asks for them. Pure."""

import math
from datetime import date, datetime
from typing import TypedDict

from gpu_jobs.errors import RefusedError
from gpu_jobs.jobs import Order
from gpu_jobs.offers import Offer
from gpu_jobs.settings import Settings

GPU_USD_PER_HOUR = {
    "cpu": 0.0,
    "T4": 0.59,
    "L4": 0.80,
    "A10": 1.10,
    "A10G": 1.10,
    "L40S": 1.95,
    "A100": 2.10,
    "A100-40GB": 2.10,
    "A100-80GB": 2.50,
    "RTX-PRO-6000": 3.03,
    "H100": 3.95,
    "H200": 4.54,
    "B200": 6.25,
}
_CORE_USD_PER_HOUR = 0.0000131 * 3600
_GIB_USD_PER_HOUR = 0.00000222 * 3600
_MAX_GPUS = 8
_CAP_HOURS = 24
"""A function call ends by force after this long."""
_MARGIN_HOURS = 0.5
_SOURCE = "third-party notes of modal.com/pricing, 2026"


class Options(TypedDict, total=False):
    """For `Function.with_options`. Equal options share containers, so they name no moment and no order."""

    gpu: str
    cpu: float
    memory: int
    timeout: int
    max_containers: int


def offers_in(settings: Settings) -> list[Offer]:
    """One for each entry of `modal_gpus`.

    Raises:
        RefusedError: an entry is not a GPU that Modal has.
    """
    return [_offer(entry.replace(" ", ""), settings) for entry in settings.modal_gpus]


def options(order: Order, settings: Settings, now: datetime) -> Options:
    """The timeout is a second line, in whole hours: GPU workers end at the order's expiry by themselves."""
    offer = order.offer
    left_hours = math.ceil((order.expires_at - now).total_seconds() / 3600 + _MARGIN_HOURS / 2)
    wanted = Options(timeout=3600 * min(_CAP_HOURS, max(1, left_hours)), max_containers=settings.modal_max_containers)
    if "," in offer.gpu:
        return wanted  # deployed with its machine
    if offer.num_gpus:
        wanted["gpu"] = offer.gpu if offer.num_gpus == 1 else f"{offer.gpu}:{offer.num_gpus}"
    wanted["cpu"] = settings.modal_cores * max(1, offer.num_gpus)
    wanted["memory"] = 1024 * settings.modal_memory_gib * max(1, offer.num_gpus)
    return wanted


def _offer(entry: str, settings: Settings) -> Offer:
    parsed = [_parsed(each) for each in entry.split(",")]
    num_gpus = parsed[0][1]
    if any(number != num_gpus for _, number in parsed):
        raise RefusedError("FANFOLD_MODAL_GPUS", f"'{entry}': all of a list must have the same number of GPUs")
    usd = max(GPU_USD_PER_HOUR[gpu] for gpu, _ in parsed)
    machine_usd = settings.modal_cores * _CORE_USD_PER_HOUR + settings.modal_memory_gib * _GIB_USD_PER_HOUR
    return Offer(
        platform="modal",
        gpu=entry if len(parsed) > 1 else parsed[0][0],
        num_gpus=num_gpus,
        region=settings.modal_region or "anywhere",
        mode="preemptible",
        usd_per_hour=(usd + machine_usd) * max(1, num_gpus),
        priced_on=date(2026, 11, 24),
        price_source=f"{_SOURCE}; {settings.modal_scaledown_s} s idle after the last GPU job come on top",
        max_workers=settings.modal_max_containers,
        max_hours=_CAP_HOURS - _MARGIN_HOURS,
    )


def _parsed(gpu: str) -> tuple[str, int]:
    """GPU type and number, as in "A100:4"."""
    name, _, number = gpu.partition(":")
    if name not in GPU_USD_PER_HOUR or not (number or "1").isdecimal() or not 1 <= int(number or 1) <= _MAX_GPUS:
        raise RefusedError(
            "FANFOLD_MODAL_GPUS", f"'{gpu}' is none of {', '.join(GPU_USD_PER_HOUR)}, or up to 8 as L4:2"
        )
    return name, 0 if name == "cpu" else int(number or 1)
