"""The one seam between Fanfold and a GPU cloud: start GPU workers, look, stop."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gpu_jobs.errors import OutcomeUnknownError, RefusedError
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Handle, Observation, Order
from gpu_jobs.settings import Settings


class Platform(Protocol):
    """A GPU cloud. Adapters raise only `gpu_jobs.errors`; they never retry and never sleep."""

    @property
    def name(self) -> str:
        """The platform's name in the table of platforms, in offers and in policies."""

    @property
    def find_lag_s(self) -> float:
        """Seconds after `start` during which a GPU job may still be missing from `find` and `list_owned`."""

    def offers(self) -> Sequence[Offer]:
        """The machines that can be rented here, with their prices."""

    async def start(self, order: Order) -> Handle:
        """Start `order.num_workers` GPU workers named after `order.name`; return once accepted.

        Raises:
            NoCapacityError: nothing was started; another offer may work. `QuotaError`: a limit of our account.
            RejectedError: the request is wrong; asking again fails in the same way. `BalanceError`: no money is left.
            OutcomeUnknownError: the reply was lost; containers may be running or not.
        """

    async def find(self, name: str) -> Handle | None:
        """Look up a GPU job by its order's name. None proves nothing within `find_lag_s`: listings lag behind."""

    async def observe(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        """Report the state of every handle; one that the platform does not know any more is `Phase.GONE`."""

    async def stop(self, handle: Handle) -> None:
        """Ask for a stop; no error if the GPU job is already over. `observe` reports when it has stopped."""

    async def list_owned(self, prefix: str) -> Sequence[Handle]:
        """All living GPU jobs whose order's name starts with `prefix`, whichever orchestrator started them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that a platform needs before GPU jobs can run on it, and what the doctor found."""

    name: str
    is_ok: bool
    found: str
    fix: str = ""
    """What to do, with the command or the web page; "" if the check is passed."""


_QUOTA = re.compile(r"(^|\s)quota([\s.,:;]|$)|\b\w+PerProjectRegion\b", re.IGNORECASE)


def is_about_quota(message: str) -> bool:
    """Whether a refusal is about a quota: for requests that a platform refuses with one code, whatever the cause.

    RunPod answers 400 for quotas, capacity and bad requests alike, with a `detail` only (docs.runpod.io/api-reference);
    Cloud Run answers INVALID_ARGUMENT or FAILED_PRECONDITION with "Quota violated" and the name of one of
    cloud.google.com/run/quotas. Only "quota" as a word of its own counts, since names of images and projects may
    contain it, or one of Google's quotas by its name, such as CpuAllocPerProjectRegion.
    """
    return _QUOTA.search(message) is not None


_BALANCE = re.compile(r"(^|\s)(balance|credits?|funds)([\s.,:;]|$)", re.IGNORECASE)
_LACK = re.compile(
    r"insufficient|not enough|no more|too low|used up|exhausted|negative|out of|empty|ran out", re.IGNORECASE
)


def is_about_balance(message: str) -> bool:
    """As `is_about_quota`, for an account without money: RunPod documents no status for it."""
    return _BALANCE.search(message) is not None and _LACK.search(message) is not None


def require_emulator(variable: str, address: str) -> None:
    """Refuse the real platform during a rehearsal.

    Raises:
        RefusedError: this is a rehearsal, and the setting of that variable names no emulator.
    """
    if Settings().rehearsal and not address:
        raise RefusedError(variable, f"is not set, and a rehearsal uses emulators only: {REHEARSE}")


REHEARSE = "name the platform in `fanfold rehearse --platforms`"


async def start_once(platform: Platform, order: Order) -> Handle:
    """Start a GPU job; after a lost reply, look for it by name instead of starting it a second time."""
    try:
        return await platform.start(order)
    except OutcomeUnknownError:
        handle = await platform.find(order.name)
        if handle is None:
            raise  # the caller looks again later, under the same name
        return handle
