"""GPU workers on RunPod: in pods with several GPUs, or as jobs of a serverless endpoint.

Both are found by name alone: it holds the order, which begins with the store root's hash, and the deadline.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import date

from gpu_jobs.errors import RefusedError
from gpu_jobs.jobs import Handle, Observation, Order
from gpu_jobs.offers import Offer
from gpu_jobs.platforms.runpod_api import DEADLINE_S, open_account
from gpu_jobs.platforms.runpod_pods import Pods
from gpu_jobs.platforms.runpod_serverless import Endpoints
from gpu_jobs.settings import Settings

SERVERLESS = "serverless"
"""Mode of an offer; any other is a pod's."""
_LIST_LAG_S = 15.0
"""What was made may be missing from RunPod's lists for so long; a guess, RunPod promises nothing."""
POLL_S = 10.0
"""Age at which a shared listing is made anew."""


class RunPodPlatform:
    """Implements `Platform`. A handle's id tells what it is: `pods/…` or `serverless/…`.

    Raises:
        RefusedError: a setting is missing or wrong.
    """

    name = "runpod"

    def __init__(
        self, settings: Settings | None = None, *, deadline_s: float = DEADLINE_S, poll_s: float = POLL_S
    ) -> None:
        self._settings = settings or Settings()
        if not self._settings.runpod_image:
            raise RefusedError("FANFOLD_RUNPOD_IMAGE", "is not set; the platform runpod needs it")
        account = open_account(self._settings, deadline_s=deadline_s)
        self.find_lag_s = deadline_s + _LIST_LAG_S
        self._pods = Pods(account, self._settings, poll_s=poll_s, find_lag_s=self.find_lag_s)
        self._endpoints = Endpoints(account, self._settings, poll_s=poll_s, find_lag_s=self.find_lag_s)

    def offers(self) -> Sequence[Offer]:
        return offers_in(self._settings)

    async def start(self, order: Order) -> Handle:
        return await (self._endpoints if order.offer.mode == SERVERLESS else self._pods).start(order)

    async def find(self, name: str) -> Handle | None:
        return await self._pods.find(name) or await self._endpoints.find(name)

    async def observe(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        jobs = {handle for handle in handles if _is_serverless(handle)}
        return {
            **await self._pods.observe([handle for handle in handles if handle not in jobs]),
            **await self._endpoints.observe(jobs),
        }

    async def stop(self, handle: Handle) -> None:
        await (self._endpoints if _is_serverless(handle) else self._pods).stop(handle)

    async def list_owned(self, prefix: str) -> Sequence[Handle]:
        return [*await self._pods.list_owned(prefix), *await self._endpoints.list_owned(prefix)]


def _is_serverless(handle: Handle) -> bool:
    return handle.id.startswith("serverless/")


_PODS = {"NVIDIA L4": 0.39, "NVIDIA A40": 0.44, "NVIDIA A100 80GB PCIe": 1.79, "NVIDIA H100 80GB HBM3": 3.99}
_POOLS = {"AMPERE_24": 0.00019, "AMPERE_48": 0.00034, "AMPERE_80": 0.00076, "ADA_80_PRO": 0.00116}
"""Serverless, in dollars a second."""


def offers_in(settings: Settings) -> list[Offer]:
    """What the settings allow: GPU types for pods, or RunPod's pools of them for serverless endpoints.

    Raises:
        RefusedError: the setting names another GPU type.
    """
    is_serverless = settings.runpod_mode == SERVERLESS
    prices = {pool: usd * 3600 for pool, usd in _POOLS.items()} if is_serverless else _PODS
    if settings.runpod_gpu and settings.runpod_gpu not in prices:
        raise RefusedError("FANFOLD_RUNPOD_GPU", f"'{settings.runpod_gpu}' is none of {', '.join(prices)}")
    return [
        Offer(
            platform="runpod",
            gpu=gpu,
            num_gpus=1,
            region=",".join(settings.runpod_data_centers) or "any",
            mode=SERVERLESS if is_serverless else "secure",
            usd_per_hour=usd,
            priced_on=date(2026, 8, 20) if is_serverless else date(2026, 11, 9),
            price_source="docs.runpod.io" if is_serverless else "runpod.io/pricing by public price trackers",
            max_workers=5 if is_serverless else settings.runpod_gpus_per_pod,
        )
        for gpu, usd in prices.items()
        if settings.runpod_gpu in ("", gpu)
    ]
