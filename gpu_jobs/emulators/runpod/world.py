"""The emulated account: its resources and methods. Everything runs in one event loop, so there are no locks."""

import asyncio
import itertools
import re
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_jobs.emulators.base import Image
from gpu_jobs.emulators.runpod.bill import Bill
from gpu_jobs.emulators.runpod.bodies import CreateEndpoint, CreatePod, PodAction
from gpu_jobs.emulators.runpod.endpoints import Endpoint
from gpu_jobs.emulators.runpod.errors import ApiError
from gpu_jobs.emulators.runpod.pods import GRACE_S, Pod
from gpu_jobs.emulators.runpod.script import Script

PRICES = {
    "NVIDIA L4": 0.39,
    "NVIDIA A40": 0.44,
    "NVIDIA L40S": 0.86,
    "NVIDIA A100 80GB PCIe": 1.79,
    "NVIDIA A100-SXM4-80GB": 1.89,
    "NVIDIA H100 PCIe": 2.89,
    "NVIDIA H100 80GB HBM3": 3.99,
    "NVIDIA H200": 4.59,
    "NVIDIA B200": 6.79,
}
"""Prices in dollars per hour of one GPU in the secure cloud; the community cloud costs two thirds of that."""
POOLS = {
    "AMPERE_24": 0.00019,
    "AMPERE_48": 0.00034,
    "ADA_48_PRO": 0.00053,
    "AMPERE_80": 0.00076,
    "ADA_80_PRO": 0.00116,
    "HOPPER_141": 0.00155,
}
"""Prices of serverless workers, in dollars per second of one GPU."""
MAX_GPUS = 8
NO_INSTANCES = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
_SECRET = re.compile(r"\{\{ *RUNPOD_SECRET_(\w+) *\}\}")


@dataclass(slots=True, kw_only=True)
class World:
    """Everything that the account owns, and the settings that tests change."""

    images: dict[str, Image]
    key: str = "emulated"
    stock: dict[tuple[str, str], int] = field(default_factory=dict)
    """Number of free GPUs by type and data centre; a type without any entry is always available."""
    data_centers: Sequence[str] = ("EU-RO-1", "US-KS-2")
    secrets: dict[str, str] = field(default_factory=dict)
    volumes: dict[str, str] = field(default_factory=dict)
    """The data centre of each network volume."""
    balance_usd: float = 100.0
    quota_per_minute: int | None = 60
    list_lag_s: float = 0.0
    page_size: int = 100
    pod_key_may: set[str] = field(default_factory=lambda: {"stop", "terminate"})
    """What a pod may do to itself with its own key. Reports of users contradict each other."""
    is_provisioning_stuck: bool = False
    provision_s: float = 0.0
    pull_s: float = 0.0
    restart_s: float = 0.2
    grace_s: float = GRACE_S
    long_poll_s: float = 5.0
    """How long a serverless worker's request for a job is held open; at RunPod up to 90 s."""
    worker_idle_s: float = 5.0
    max_workers: int = 5
    """The most serverless workers of the account, over all endpoints."""
    max_redeliveries: int = 2
    """How often a job whose worker died is redelivered; RunPod documents no number."""
    url: str = ""
    script: Script = field(default_factory=Script)
    bill: Bill = field(default_factory=Bill)
    pods: dict[str, Pod] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    _ending: set[asyncio.Task[None]] = field(default_factory=set)
    log_dir: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="fanfold-runpod-")))
    _ids: "itertools.count[int]" = field(default_factory=itertools.count)
    _asked_at: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log_dir.mkdir(parents=True, exist_ok=True)

    def authorise(self, header: str, action: str, pod_id: str) -> None:
        """Check a key: the account's key may do everything, a pod's own key what `pod_key_may` says."""
        key = header.removeprefix("Bearer ")
        if key == self.key:
            return
        if key not in {self.pod_key(each) for each in self.pods}:
            raise ApiError(401, "Invalid API key")
        if key != self.pod_key(pod_id) or action not in self.pod_key_may:
            raise ApiError(403, "This API key may not do that")

    def pod_key(self, pod_id: str) -> str:
        return f"key-of-{pod_id}"

    def count_request(self) -> None:
        """Count a request; raise 429 if the account's quota is used up."""
        now = time.monotonic()
        self._asked_at = [at for at in self._asked_at if now - at < 60]  # noqa: PLR2004 - a minute
        if self.quota_per_minute is not None and len(self._asked_at) >= self.quota_per_minute:
            raise ApiError(429, "Too many requests")
        self._asked_at.append(now)

    @property
    def retry_after_s(self) -> float:
        """Seconds until the oldest request of the last minute no longer counts."""
        return max(1.0, 60.0 - (time.monotonic() - self._asked_at[0])) if self._asked_at else 1.0

    def create_pod(self, body: CreatePod) -> dict[str, Any]:
        if body.gpu.id not in PRICES or body.gpu.count > MAX_GPUS:
            raise ApiError(400, f"{body.gpu.count} x {body.gpu.id} is not offered")
        usd_per_hour = PRICES[body.gpu.id] * body.gpu.count * (1 if body.cloud == "SECURE" else 2 / 3)
        if self.balance_usd - self.bill.usd < usd_per_hour:
            raise ApiError(402, "Your balance is too low to start this pod: an hour of it must be left")
        data_center = self._allocate(body)
        pod = Pod(self, f"pod{next(self._ids):05d}", body, data_center, usd_per_hour)
        self.pods[pod.id] = pod
        return pod.resource

    def list_pods(self, cursor: str) -> dict[str, Any]:
        seen_until = time.time() - self.list_lag_s
        found = [pod.resource for pod in self.pods.values() if pod.created_at <= seen_until]
        return self.page("pods", [each for each in found if each["status"] != "TERMINATED"], cursor)

    def page(self, name: str, found: Sequence[Mapping[str, Any]], cursor: str) -> dict[str, Any]:
        start = int(cursor or 0)
        end = start + self.page_size
        has_next = end < len(found)
        pagination = {"hasNextPage": has_next, "nextCursor": str(end) if has_next else None}
        return {name: found[start:end], "pagination": pagination}

    def get_pod(self, pod_id: str) -> dict[str, Any]:
        return self._pod(pod_id).resource

    async def act(self, pod_id: str, body: PodAction) -> dict[str, Any]:
        pod = self._pod(pod_id)
        if body.action not in pod.resource["actions"]:
            raise ApiError(409, f"A pod that is {pod.status} cannot {body.action}")
        match body.action:
            case "stop":
                self._soon(pod.stop())
            case "terminate":
                self.delete_pod(pod_id)
            case "restart":
                pod.crash()
            case "start":
                raise ApiError(400, "There are not enough free GPUs on the host machine to start this pod.")
        return pod.resource

    def delete_pod(self, pod_id: str) -> None:
        pod = self._pod(pod_id)
        self._free(pod)
        self._soon(pod.terminate())

    def catalog(self) -> list[dict[str, Any]]:
        """Return GPU types for pods, then one for each serverless pool, as `/v2/catalog/gpus` shows them with stock."""
        stock = Counter[str]()
        for (gpu, _), count in self.stock.items():
            stock[gpu] += count
        pods = [
            {
                "id": gpu,
                "pool": None,
                "price": {"secure": usd, "community": round(usd * 2 / 3, 2)},
                "availability": "NONE" if gpu in stock and not stock[gpu] else "HIGH",
            }
            for gpu, usd in PRICES.items()
        ]
        pools = [
            {"id": f"one of {pool}", "pool": pool, "price": {"serverless": usd * 3600}, "availability": "HIGH"}
            for pool, usd in POOLS.items()
        ]
        return [*pods, *pools]

    def volume(self, volume_id: str) -> dict[str, Any]:
        if volume_id not in self.volumes:
            raise ApiError(404, f"network volume {volume_id} not found")
        return {"id": volume_id, "name": volume_id, "size": 100, "dataCenter": self.volumes[volume_id]}

    def create_endpoint(self, body: CreateEndpoint) -> dict[str, Any]:
        if unknown := [pool for pool in body.gpu.pools if pool not in POOLS]:
            raise ApiError(400, f"{unknown[0]} is not a GPU pool")
        if self.balance_usd - self.bill.usd <= 0:
            raise ApiError(402, "Your balance is used up")
        if sum(each.body.workers.max for each in self.endpoints.values()) + body.workers.max > self.max_workers:
            raise ApiError(
                400, f"Max workers across all endpoints must not exceed your workers quota ({self.max_workers})"
            )
        endpoint = Endpoint(self, f"endpoint{next(self._ids):05d}", body)
        self.endpoints[endpoint.id] = endpoint
        return endpoint.resource

    def list_endpoints(self, cursor: str) -> dict[str, Any]:
        seen_until = time.time() - self.list_lag_s
        found = [each.resource for each in self.endpoints.values() if each.created_at <= seen_until]
        return self.page("endpoints", found, cursor)

    def endpoint(self, endpoint_id: str) -> Endpoint:
        if endpoint_id not in self.endpoints:
            raise ApiError(404, f"endpoint {endpoint_id} not found")
        return self.endpoints[endpoint_id]

    def delete_endpoint(self, endpoint_id: str) -> None:
        self.endpoint(endpoint_id)
        self._soon(self.endpoints.pop(endpoint_id).delete())

    def pool_usd_per_hour(self, body: CreateEndpoint) -> float:
        return POOLS[body.gpu.pools[0]] * 3600 * body.gpu.count

    def _soon(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        self.grace_s = 0.5
        await asyncio.gather(
            *(pod.terminate() for pod in self.pods.values()),
            *(endpoint.delete() for endpoint in self.endpoints.values()),
            *self._ending,
        )

    def resolved(self, env: Mapping[str, str]) -> dict[str, str]:
        """Replace references to secrets by their values; unknown references stay as they are."""
        return {
            name: _SECRET.sub(lambda found: self.secrets.get(found[1], found[0]), value) for name, value in env.items()
        }

    def _allocate(self, body: CreatePod) -> str:
        wanted = body.data_center_ids or list(self.data_centers)
        for mount in body.mounts.network:
            if self.volumes.get(mount.volume_id) not in wanted:
                raise ApiError(400, f"Network volume {mount.volume_id} is not in {', '.join(wanted)}")
            wanted = [self.volumes[mount.volume_id]]
        if not any(gpu == body.gpu.id for gpu, _ in self.stock):
            return wanted[0]
        for data_center in wanted:
            if self.stock.get((body.gpu.id, data_center), 0) >= body.gpu.count:
                self.stock[body.gpu.id, data_center] -= body.gpu.count
                return data_center
        raise ApiError(400, NO_INSTANCES)

    def _free(self, pod: Pod) -> None:
        key = (pod.body.gpu.id, pod.data_center)
        if key in self.stock:
            self.stock[key] += pod.body.gpu.count

    def _pod(self, pod_id: str) -> Pod:
        if pod_id not in self.pods or self.pods[pod_id].status == "TERMINATED":
            raise ApiError(404, f"pod {pod_id} not found")
        return self.pods[pod_id]
