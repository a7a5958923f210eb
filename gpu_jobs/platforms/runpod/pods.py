"""GPU jobs as pods: a pod is a machine with several GPUs, which are divided among its GPU workers.

When a pod's command ends, RunPod starts it again and does not report it; pods have no time limit, and creating one is
not idempotent. So a pod ends itself: it terminates when its GPU workers are done, and stops when they have failed. Of
two pods with one name, made by one request that was carried out twice, the older is kept.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from gpu_jobs.errors import OutcomeUnknownError, PlatformError
from gpu_jobs.jobs.failures import Failure, gravest
from gpu_jobs.jobs.orders import Handle, Observation, Order, Phase
from gpu_jobs.platforms.runpod.api import AbsentError, Account, Listing
from gpu_jobs.platforms.runpod.names import VOLUME_PATH, Name, environment
from gpu_jobs.platforms.runpod.replies import Created, Listed, read
from gpu_jobs.platforms.runpod.settings import RunPodSettings

_MAX_RESTARTS = 3
_CLOCKS_S = 3.0
"""Seconds by which two readings of a start time may differ: uptimes are whole seconds, and replies take time."""


class PodEnd(NamedTuple):
    """Why a pod is over, or must not go on."""

    reason: str
    failure: Failure | None = None


_ENDS = {
    "EXITED": PodEnd("its GPU workers failed, or RunPod killed it: the pod was found stopped"),
    "ERROR": PodEnd("killed by RunPod: the pod is in error"),
}
Found = Sequence[tuple[Name, Listed]]
"""Our pods in a listing, with their parsed names."""


@dataclass(slots=True)
class _Watched:
    """What this process remembers about one GPU job, since RunPod forgets pods that have ended."""

    created_at: float | None = None
    """Time of our monotonic clock when its last pod was asked for; None if another process did."""
    ids: list[str] = field(default_factory=list)
    """Ids of the pods that this process created."""
    is_listed: bool = False
    has_run: bool = False
    is_stopped: bool = False
    ends: dict[str, PodEnd] = field(default_factory=dict)
    """How pods ended, by name."""
    first_seen: dict[str, datetime] = field(default_factory=dict)
    """When a pod was first seen that was not up, by pod id."""
    boots: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Times of our monotonic clock when a pod's container was started, by pod id."""

    def end(self) -> Observation:
        """The final observation, when none of its pods is left."""
        if self.is_stopped:
            return Observation(phase=Phase.STOPPED, reason="stopped")
        if self.ends:
            reasons = sorted({end.reason for end in self.ends.values()})
            failure = gravest(end.failure for end in self.ends.values())
            return Observation(phase=Phase.FAILED, reason="; ".join(reasons), failure=failure)
        if self.has_run:
            return Observation(phase=Phase.SUCCEEDED, detail="its pods have ended themselves")
        return Observation(phase=Phase.GONE, reason="not to be found on RunPod")


class Pods:
    """The methods of `Platform`, for pods."""

    def __init__(self, account: Account, settings: RunPodSettings, *, poll_s: float, find_lag_s: float) -> None:
        self._account = account
        self._settings = settings
        self._poll_s = poll_s
        self._find_lag_s = find_lag_s
        self._watched: defaultdict[str, _Watched] = defaultdict(_Watched)

    async def start(self, order: Order) -> Handle:
        watched = self._watched[order.name]
        try:
            for name in _names(order, self._settings.gpus_per_pod):
                watched.created_at = time.monotonic()
                pod = await self._account.call("POST", "/v2/pods", self._request(order, name))
                watched.ids.append(read(Created, pod, "reply to a new pod").id)
        except OutcomeUnknownError:
            raise
        except PlatformError:
            while watched.ids:  # none of its pods may be left
                await self._end(watched.ids.pop())
            raise
        return _handle(order.name)

    async def find(self, name: str) -> Handle | None:
        listing = await self._account.listing("pods", max_age_s=self._poll_s)
        return _handle(name) if any(each.order == name for each, _ in ours(listing)) else None

    async def observe(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        if not handles:
            return {}
        listing = await self._account.listing("pods", max_age_s=self._poll_s)
        by_order = defaultdict(list)
        for name, pod in ours(listing):
            by_order[name.order].append((name, pod))
        return {
            handle: await self._observe(handle.order, by_order[handle.order], listing.asked_at) for handle in handles
        }

    async def stop(self, handle: Handle) -> None:
        """Terminate the pods, also those that no listing shows yet; a stopped pod would go on to cost."""
        watched = self._watched[handle.order]
        listed = {pod.id for name, pod in ours(await self._account.listing("pods")) if name.order == handle.order}
        watched.is_stopped = watched.is_stopped or bool(listed or watched.ids)
        for pod_id in listed.union(watched.ids):
            await self._end(pod_id)
        watched.ids.clear()

    async def list_owned(self, prefix: str) -> Sequence[Handle]:
        found = ours(await self._account.listing("pods"))
        return [_handle(order) for order in sorted({name.order for name, _ in found if name.order.startswith(prefix)})]

    async def _observe(self, order: str, pods: Found, asked_at: float) -> Observation:
        watched = self._watched[order]
        running = starting = 0
        for name, pod in await self._without_doubles(pods):
            watched.is_listed = True
            if end := self._end_of(pod, watched, asked_at):
                watched.ends[str(name)] = end
                await self._end(pod.id)
            elif pod.status == "RUNNING":
                watched.has_run = True
                running += name.num_workers
            else:
                starting += name.num_workers
        if running:
            return Observation(phase=Phase.RUNNING, workers_alive=running + starting)
        if starting or self._may_be_listed_late(watched):
            return Observation(phase=Phase.STARTING)
        return watched.end()

    def _may_be_listed_late(self, watched: _Watched) -> bool:
        if watched.created_at is None or watched.is_listed or watched.is_stopped:
            return False
        return time.monotonic() - watched.created_at < self._find_lag_s

    async def _without_doubles(self, pods: Found) -> Found:
        """Keep the oldest pod of each name and end the others."""
        kept: dict[str, tuple[Name, Listed]] = {}
        for name, pod in sorted(pods, key=lambda each: each[1].age):
            if str(name) in kept:
                await self._end(pod.id)
            else:
                kept[str(name)] = (name, pod)
        return list(kept.values())

    def _end_of(self, pod: Listed, watched: _Watched, asked_at: float) -> PodEnd | None:
        """Why a pod is over or must be ended; None if it may go on."""
        if pod.status in _ENDS:
            return _ENDS[pod.status]
        if pod.runtime is None:
            first_seen = watched.first_seen.setdefault(pod.id, datetime.now(UTC))
            age_s = (datetime.now(UTC) - (pod.created_at or first_seen)).total_seconds()
            minutes = self._settings.boot_minutes
            late = f"not up within {minutes:g} minutes: its image cannot be pulled, or its host is bad"
            return PodEnd(late, Failure.IMAGE) if age_s > minutes * 60 else None
        if pod.runtime.uptime is None:
            return None  # it runs, and RunPod does not say since when
        boots = watched.boots[pod.id]
        booted_at = asked_at - pod.runtime.uptime
        if not boots or booted_at - boots[-1] > _CLOCKS_S:
            boots.append(booted_at)
        crashed = f"its container ended and was started again {_MAX_RESTARTS} times: the image or its command crashes"
        return PodEnd(crashed, Failure.IMAGE) if len(boots) > _MAX_RESTARTS else None

    def _request(self, order: Order, name: Name) -> dict[str, Any]:
        """The body of the request that creates one pod."""
        settings = self._settings
        body: dict[str, Any] = {
            "name": str(name),
            "image": order.offer.image(settings.image),
            "cloud": "COMMUNITY" if order.offer.mode == "community" else "SECURE",
            "gpu": {
                "id": order.offer.gpu,
                "count": name.num_workers * max(1, order.offer.num_gpus),
                "minCudaVersion": settings.min_cuda or order.offer.cuda,
            },
            "disk": settings.disk_gb,
            "env": environment(settings),
            "cmd": _command(order, name, self._account.api_url),
        }
        if order.offer.region != "any":
            body["dataCenterIds"] = order.offer.region.split(",")
        if settings.volume:
            body["mounts"] = {"network": [{"volumeId": settings.volume, "path": VOLUME_PATH}]}
        if settings.registry:
            body["registry"] = settings.registry
        return body

    async def _end(self, pod_id: str) -> None:
        """Terminate a pod; no error if it is gone."""
        with suppress(AbsentError):
            await self._account.call("DELETE", f"/v2/pods/{pod_id}")


def ours(listing: Listing) -> Iterator[tuple[Name, Listed]]:
    """The pods of a listing that Fanfold has made, for any store."""
    for row in listing.found:
        name = Name.parse(row["name"])
        if name is None:
            continue
        pod = read(Listed, row, "list of pods")
        if pod.status != "TERMINATED":
            yield name, pod


def _handle(order: str) -> Handle:
    return Handle(platform="runpod", order=order, id=f"pods/{order}")


def _names(order: Order, gpus_per_pod: int) -> Iterator[Name]:
    """The names of an order's pods; each pod has as many GPU workers as its GPUs allow."""
    at_once = max(1, gpus_per_pod // max(1, order.offer.num_gpus))
    for first in range(0, order.num_workers, at_once):
        last = min(order.num_workers, first + at_once) - 1
        yield Name(order.name, first, last, int(order.expires_at.timestamp()))


def _command(order: Order, name: Name, api_url: str) -> list[str]:
    options = {
        "--order": order.name,
        "--slots": f"{name.first_slot}-{name.last_slot}",
        "--gpus": str(order.offer.num_gpus),
        "--deadline": str(name.deadline),
    }
    flags = [part for option in options.items() for part in option]
    return ["python", "-m", "gpu_jobs.platforms.runpod.pod_worker", "--api", api_url, order.campaign_uri, *flags]
