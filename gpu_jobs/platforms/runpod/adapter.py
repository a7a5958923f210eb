"""GPU workers on RunPod: in pods with several GPUs, or as jobs of a serverless endpoint.

Both are found by their name alone: it contains the order's name, which begins with the store root's hash, and the
deadline.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from gpu_jobs.errors import RefusedError
from gpu_jobs.jobs.offers import Offer, offers_of
from gpu_jobs.jobs.orders import Handle, Observation, Order
from gpu_jobs.platforms.runpod.api import DEADLINE_S, open_account
from gpu_jobs.platforms.runpod.pods import Pods
from gpu_jobs.platforms.runpod.serverless import Endpoints
from gpu_jobs.platforms.runpod.settings import RunPodSettings

SERVERLESS = "serverless"
"""The mode of offers for serverless endpoints; all other modes are for pods."""
_LIST_LAG_S = 15.0
"""Seconds for which something new may be missing from RunPod's lists; a guess, since RunPod documents nothing."""
POLL_S = 10.0
"""Age in seconds at which a shared listing is read again."""


class RunPodPlatform:
    """Implements `Platform`. A handle's id begins with `pods/` or `serverless/`.

    Raises:
        RefusedError: a setting is missing or wrong.
    """

    name = "runpod"

    def __init__(
        self, settings: RunPodSettings | None = None, *, deadline_s: float = DEADLINE_S, poll_s: float = POLL_S
    ) -> None:
        self._settings = settings or RunPodSettings()
        if not self._settings.image:
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


def offers_in(settings: RunPodSettings) -> list[Offer]:
    """The offers that the settings allow. Pods name a GPU type of RunPod, serverless endpoints a pool of types.

    Raises:
        RefusedError: the settings allow no offer.
    """
    places = ",".join(settings.data_centers)
    known = [offer for offer in offers_of("runpod") if offer.mode in settings.modes]
    wanted = [offer for offer in known if settings.gpu in ("", offer.gpu)]
    if not wanted:
        names = ", ".join(sorted({offer.gpu for offer in known}))
        raise RefusedError("FANFOLD_RUNPOD_GPU", f"'{settings.gpu}' is none of {names or 'any mode'}")
    return [
        replace(offer, region=places or offer.region) for offer in wanted if offer.num_gpus == settings.gpus_per_worker
    ]
