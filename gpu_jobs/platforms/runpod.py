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
from gpu_jobs.settings import Settings

_LIST_LAG_S = 15.0
"""A new pod may be missing from RunPod's list for so long; a guess, RunPod promises nothing."""
POLL_S = 10.0
"""Age at which the shared listing is made anew."""


class RunPodPlatform:
    """Implements `Platform`. A handle's id is `pods/<order>`: all pods that carry the order in their names.

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
        self.find_lag_s = deadline_s + _LIST_LAG_S
        account = open_account(self._settings, deadline_s=deadline_s)
        self._pods = Pods(account, self._settings, poll_s=poll_s, find_lag_s=self.find_lag_s)

    def offers(self) -> Sequence[Offer]:
        return _offers(self._settings)

    async def start(self, order: Order) -> Handle:
        return await self._pods.start(order)

    async def find(self, name: str) -> Handle | None:
        return await self._pods.find(name)

    async def observe(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        return await self._pods.observe(handles)

    async def stop(self, handle: Handle) -> None:
        await self._pods.stop(handle)

    async def list_owned(self, prefix: str) -> Sequence[Handle]:
        return await self._pods.list_owned(prefix)


_PRICES = {"NVIDIA L4": 0.39, "NVIDIA A40": 0.44, "NVIDIA A100 80GB PCIe": 1.79, "NVIDIA H100 80GB HBM3": 3.99}


def _offers(settings: Settings) -> list[Offer]:
    return [
        Offer(
            platform="runpod",
            gpu=gpu,
            num_gpus=1,
            region=",".join(settings.runpod_data_centers) or "any",
            mode="secure",
            usd_per_hour=usd,
            priced_on=date(2026, 11, 9),
            price_source="runpod.io/pricing by public price trackers",
            max_workers=settings.runpod_gpus_per_pod,
        )
        for gpu, usd in _PRICES.items()
        if settings.runpod_gpu in ("", gpu)
    ]
