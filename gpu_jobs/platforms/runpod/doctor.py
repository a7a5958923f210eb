"""What GPU jobs on RunPod need, checked before any is ordered: `fanfold doctor runpod`.

It starts nothing; it writes one small object into the store and deletes it. It cannot see whether a secret of that name
exists and is correct, whether the image can be pulled, and whether a pod's own key may end its pod.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from gpu_jobs.jobs.offers import Offer
from gpu_jobs.platforms.base import Check
from gpu_jobs.platforms.doctor import MissingError, check, try_store
from gpu_jobs.platforms.google_account import ACCOUNT
from gpu_jobs.platforms.runpod.adapter import SERVERLESS, offers_in
from gpu_jobs.platforms.runpod.api import Account, open_account
from gpu_jobs.platforms.runpod.pods import ours
from gpu_jobs.platforms.runpod.settings import RunPodSettings
from gpu_jobs.store import is_local

_SECRETS = "https://console.runpod.io/user/secrets"
_OFF_BY = 0.05
"""The share by which our price may differ from RunPod's before the doctor mentions it."""


def checks(store_root: str, settings: RunPodSettings | None = None) -> Iterator[Check]:
    """Check one thing after the other; what depends on something that is missing is left out.

    Args:
        store_root: where campaigns are to be kept.
        settings: the orchestrator's; None: read from the environment.
    """
    settings = settings or RunPodSettings()
    configured = check("settings", lambda: _settings(settings))
    yield configured
    key = check("API key", lambda: _key(open_account(settings)))
    yield key
    if key.is_ok:
        account = open_account(settings)
        yield check("pods past their deadline", lambda: _late_pods(account))
        if configured.is_ok:
            yield from _stock(account, settings)
        if settings.volume:
            yield check("network volume", lambda: _volume(account, settings))
    if not is_local(store_root):
        yield check("the bucket's key", lambda: _bucket_key(settings))
    yield check("store", lambda: try_store(store_root))


def _settings(settings: RunPodSettings) -> str:
    if not settings.image:
        raise MissingError("FANFOLD_RUNPOD_IMAGE is not set", "Run `export FANFOLD_RUNPOD_IMAGE=…`")
    return " or ".join(f"{offer.gpu} ({offer.mode})" for offer in offers_in(settings))


def _key(account: Account) -> str:
    pods = asyncio.run(account.listing("pods")).found
    return f"accepted; {len(pods)} pods are in the account"


def _late_pods(account: Account) -> str:
    """Look for pods past their deadline, of any store, since somebody pays for them."""
    now = time.time()
    late = [str(name) for name, _ in ours(asyncio.run(account.listing("pods", max_age_s=60.0))) if name.deadline < now]
    if late:
        raise MissingError(", ".join(late), "Run the flow reap-orphans on their store, or terminate them by hand")
    return "none"


def _stock(account: Account, settings: RunPodSettings) -> Iterator[Check]:
    """Check the stock of each GPU type that the settings allow; one that is free is enough to start."""
    catalog: list[dict[str, Any]] = []
    products = {"SERVERLESS" if offer.mode == SERVERLESS else "POD" for offer in offers_in(settings)}
    read = check("catalogue", lambda: _read(account, products, catalog))
    yield read
    if read.is_ok:
        for offer in offers_in(settings):
            yield check(f"stock of {offer.gpu}, {offer.mode}", partial(_offer, offer, catalog))


def _read(account: Account, products: Iterable[str], catalog: list[dict[str, Any]]) -> str:
    for product in products:
        path = f"/v2/catalog/gpus?include=AVAILABILITY&product={product}"
        catalog += asyncio.run(account.call("GET", path))["gpus"]
    return f"{len(catalog)} GPU types"


def _offer(offer: Offer, catalog: Sequence[dict[str, Any]]) -> str:
    field, price = ("pool", "serverless") if offer.mode == SERVERLESS else ("id", offer.mode)
    found = [gpu for gpu in catalog if gpu[field] == offer.gpu]
    if not found:
        raise MissingError("RunPod does not offer it", "Correct FANFOLD_RUNPOD_GPU")
    levels = {str(gpu.get("availability", "NONE")) for gpu in found}
    if levels == {"NONE"}:
        raise MissingError("none is free just now", "Wait, or allow other GPU types or data centres")
    usd = max(float(gpu["price"].get(price, 0.0)) for gpu in found) * offer.num_gpus
    text = f"{' or '.join(sorted(levels)).lower()}, ${usd:.2f} an hour"
    if usd and abs(usd - offer.usd_per_hour) > _OFF_BY * usd:
        text += f" (budgets are computed with ${offer.usd_per_hour:.2f})"
    return text


def _volume(account: Account, settings: RunPodSettings) -> str:
    found = asyncio.run(account.call("GET", f"/v2/network-volumes/{settings.volume}"))
    place = found["dataCenter"]
    if place not in settings.data_centers:
        fix = f"""Run `export FANFOLD_RUNPOD_DATA_CENTERS='["{place}"]'`"""
        raise MissingError(f"it is in {place}, and pods may be elsewhere", fix)
    return f"{found['size']} GB in {place}"


def _bucket_key(settings: RunPodSettings) -> str:
    if secret := settings.secrets.get(ACCOUNT):
        return f"RunPod's secret {secret}"
    fix = (
        f"Keep the key of a service account as a secret at {_SECRETS}, then run "
        f"""`export FANFOLD_RUNPOD_SECRETS='{{"{ACCOUNT}": "its name"}}'`"""
    )
    raise MissingError("GPU workers get none, and RunPod's machines have no Google account of their own", fix)
