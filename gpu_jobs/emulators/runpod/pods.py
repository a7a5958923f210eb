"""Emulated pods."""

import asyncio
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from gpu_jobs.emulators.runpod.bodies import CreatePod
from gpu_jobs.emulators.runpod.container import Container

if TYPE_CHECKING:
    from gpu_jobs.emulators.runpod.world import World

Status = Literal["PROVISIONING", "STARTING", "RUNNING", "EXITED", "ERROR", "TERMINATED"]
GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL; RunPod does not document its value."""
_ALIVE = ("PROVISIONING", "STARTING", "RUNNING")
_ACTIONS = {"EXITED": ["start", "terminate"], "RUNNING": ["stop", "restart", "terminate"]}


class Pod:
    """A pod. It is billed from its creation on, and its command is restarted whenever it ends."""

    def __init__(self, world: "World", pod_id: str, body: CreatePod, data_center: str, usd_per_hour: float) -> None:
        self.id = pod_id
        self.body = body
        self.data_center = data_center
        self.created_at = time.time()
        self.status: Status = "PROVISIONING"
        self.num_boots = 0
        self._world = world
        self._usd_per_hour = usd_per_hour
        self._line = world.bill.begin(body.name, usd_per_hour, body.disk)
        self._booted_at = 0.0
        self._container: Container | None = None
        self._life = asyncio.create_task(self._live())

    def stop(self) -> Coroutine[Any, Any, None]:
        """Stop the container but keep the pod, whose disk is still billed. Await the result, as of the next methods."""
        return self._end_as("EXITED")

    def fail(self) -> Coroutine[Any, Any, None]:
        """Stop the pod because the platform failed."""
        return self._end_as("ERROR")

    def terminate(self) -> Coroutine[Any, Any, None]:
        return self._end_as("TERMINATED")

    def _end_as(self, status: Status) -> Coroutine[Any, Any, None]:
        """Set the status at once; the end of the container takes longer."""
        before = self.status
        self.status = before if before == "TERMINATED" else status
        return self._finish(was_alive=before in _ALIVE)

    async def _finish(self, *, was_alive: bool) -> None:
        if was_alive:
            await self._halt()
        if self.status == "TERMINATED":
            self._line.ended_at = self._line.ended_at or time.time()
        elif was_alive:
            volume_gb = self.body.mounts.persistent.size if self.body.mounts.persistent else 0
            self._line = self._world.bill.stop(self._line, volume_gb)

    def crash(self) -> None:
        """Kill the container from outside, as a host without memory does; it is restarted."""
        if self._container is not None:
            self._container.kill()

    async def _halt(self) -> None:
        if self._container is not None:
            self._container.terminate()
            await asyncio.wait([self._life], timeout=self._world.grace_s)
            self._container.kill()
        else:
            self._life.cancel()
        await asyncio.wait([self._life])

    async def _live(self) -> None:
        if self._world.is_provisioning_stuck:
            await asyncio.Event().wait()
        await asyncio.sleep(self._world.provision_s)
        self.status = "STARTING"
        if self.body.image not in self._world.images:  # the pull is retried forever
            await asyncio.Event().wait()
        await asyncio.sleep(self._world.pull_s)
        while self.status in ("STARTING", "RUNNING"):
            self.status = "RUNNING"
            self._booted_at = time.time()
            self.num_boots += 1
            image = self._world.images[self.body.image]
            log = self._world.log_dir / f"{self.body.name}.{self.id}.log"
            command = [*self.body.entrypoint, *(self.body.cmd or self.body.args.split())]
            self._container = Container([*image.argv, *command], self._environment(), log)
            await self._container.run()
            await asyncio.sleep(self._world.restart_s)

    def _environment(self) -> dict[str, str]:
        return {
            "HOME": "/root",
            **self._world.images[self.body.image].env,
            **self._world.resolved(self.body.env),
            "RUNPOD_POD_ID": self.id,
            "RUNPOD_API_KEY": self._world.pod_key(self.id),
            "RUNPOD_GPU_COUNT": str(self.body.gpu.count),
            "RUNPOD_CPU_COUNT": str(2 * self.body.gpu.count),
            "RUNPOD_DC_ID": self.data_center,
            "RUNPOD_POD_HOSTNAME": f"{self.id}-emulated",
        }

    @property
    def resource(self) -> dict[str, Any]:
        """The pod as REST v2 shows it."""
        is_up = self.status == "RUNNING" and self._container is not None
        uptime = int(time.time() - self._booted_at)
        return {
            "id": self.id,
            "name": self.body.name,
            "status": self.status,
            "actions": _ACTIONS.get(self.status, ["terminate"]),
            "image": self.body.image,
            "args": self.body.args,
            "disk": self.body.disk,
            "env": self.body.env,
            "ports": self.body.ports,
            "mounts": self.body.mounts.model_dump(by_alias=True),
            "registry": self.body.registry,
            "gpu": {"id": self.body.gpu.id, "count": self.body.gpu.count},
            "cloud": self.body.cloud,
            "dataCenterId": self.data_center,
            "cudaVersion": "12.8",
            "ssh": {"proxy": None, "direct": None},
            "template": None,
            "cost": 0.0 if self.status == "EXITED" else self._usd_per_hour,
            "locked": False,
            "globalNetworking": None,
            "runtime": {"uptime": uptime, "gpus": [], "ports": []} if is_up else None,
            "createdAt": datetime.fromtimestamp(self.created_at, UTC).isoformat(),
            "startedAt": datetime.fromtimestamp(self._booted_at, UTC).isoformat() if is_up else None,
        }
