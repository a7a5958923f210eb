"""The one seam between Fanfold and a GPU cloud: start GPU workers, look, stop."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gpu_jobs.errors import OutcomeUnknownError
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Handle, Observation, Order


class Platform(Protocol):
    """A GPU cloud. Adapters raise only `gpu_jobs.errors`; they never retry and never sleep."""

    @property
    def name(self) -> str:
        """As in `Offer.platform`."""

    @property
    def find_lag_s(self) -> float:
        """For how long after `start` a GPU job may be missing from `find` and `list_owned`."""

    def offers(self) -> Sequence[Offer]:
        """What can be rented here."""

    async def start(self, order: Order) -> Handle:
        """Start `order.num_workers` GPU workers named after `order.name`; return once accepted.

        Raises:
            NoCapacityError: nothing started; another offer may do. `QuotaError`: by our own limit.
            RejectedError: our request is wrong; asking again fails alike. `BalanceError`: not paid for.
            OutcomeUnknownError: the reply was lost; a container may or may not be running.
        """

    async def find(self, name: str) -> Handle | None:
        """Look a GPU job up by its order's name. None is not proof: listings may lag by seconds."""

    async def observe(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        """Report every handle in one sweep; one the platform has forgotten is `Phase.GONE`."""

    async def stop(self, handle: Handle) -> None:
        """Ask for a stop; silent if already over. `observe` tells when it has stopped."""

    async def list_owned(self, prefix: str) -> Sequence[Handle]:
        """All GPU jobs, also of dead orchestrators, whose order's name starts with `prefix`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that a platform must have before GPU jobs can run on it, as a doctor has found it."""

    name: str
    is_ok: bool
    found: str
    fix: str = ""
    """What to do about it, with the command or the page, unless it is well."""


_QUOTA = re.compile(r"(^|\s)quota([\s.,:;]|$)", re.IGNORECASE)


def is_about_quota(told: str) -> bool:
    """Whether a refusal is about a quota: for requests that a platform refuses with one code, whatever the cause.

    RunPod answers 400 for quotas, capacity and bad requests alike, with a `detail` only (docs.runpod.io/api-reference);
    Cloud Run answers INVALID_ARGUMENT or FAILED_PRECONDITION with "Quota violated" and the name of one of
    cloud.google.com/run/quotas. The word alone counts: names of images and projects may hold it.
    """
    return _QUOTA.search(told) is not None


async def start_once(platform: Platform, order: Order) -> Handle:
    """Start so that a lost reply never starts the same GPU job twice."""
    try:
        return await platform.start(order)
    except OutcomeUnknownError:
        handle = await platform.find(order.name)
        if handle is None:
            raise  # the caller looks again later, under the same name
        return handle
