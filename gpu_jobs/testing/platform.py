"""A fake GPU cloud, which follows a script of faults and computes a bill."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gpu_jobs.errors import NoCapacityError, OutcomeUnknownError, RejectedError
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.offers import Offer
from gpu_jobs.jobs.orders import Handle, Observation, Order, Phase
from gpu_jobs.testing.factories import an_offer
from gpu_jobs.testing.memory import FakeClock

StartFault = Literal["fine", "no_capacity", "rejected", "reply_lost", "request_lost"]
"""The result of one `start`. If the reply is lost, the GPU job was started; if the request is lost, it was not."""


@dataclass(slots=True, kw_only=True)
class FakeJob:
    """One GPU job that was really started."""

    order: Order
    handle: Handle
    started_s: float
    phase: Phase = Phase.STARTING
    ended_s: list[float] = field(default_factory=list)
    """When each GPU worker that has ended did so."""
    reason: str = ""
    detail: str = ""
    failure: Failure | None = None
    num_stops: int = 0
    """Number of calls of `stop`."""

    @property
    def workers_alive(self) -> int:
        return self.order.num_workers - len(self.ended_s)


class FakePlatform:
    """Implements `Platform`. Each `start` takes one fault, in order; when none is left, every `start` succeeds.

    A GPU job stays in the phase `STARTING` until the test moves it. Every GPU worker is billed by the second from
    `start` to its end.
    """

    def __init__(
        self,
        *faults: StartFault,
        name: str = "fake",
        offers: Sequence[Offer] = (),
        clock: Callable[[], float] | None = None,
        find_lag_s: float = 0.0,
    ) -> None:
        """For `find_lag_s` seconds after its start, a GPU job is missing from `find` and `list_owned`."""
        self.name = name
        self.find_lag_s = find_lag_s
        self.jobs: list[FakeJob] = []
        self.num_starts = 0
        """Number of calls of `start`, whatever their result."""
        self.on_start: Callable[[Order], None] = lambda _order: None
        """Called at the beginning of each `start`."""
        self.num_blind = 0
        """Number of the next calls of `find`, `observe` and `stop` that get no answer."""
        self.refuses = ""
        """If not "", all calls of `find`, `observe` and `stop` are refused for this reason."""
        self._faults = list(faults)
        self._offers = list(offers) or [an_offer(platform=name)]
        self._clock = clock or FakeClock()

    def offers(self) -> Sequence[Offer]:
        return self._offers

    async def start(self, order: Order) -> Handle:
        self.num_starts += 1
        self.on_start(order)
        fault = self._faults.pop(0) if self._faults else "fine"
        if fault == "no_capacity":
            raise NoCapacityError(f"no {order.offer.gpu} is free")
        if fault == "rejected":
            raise RejectedError(f"{order.name} is not a request we understand")
        if fault == "request_lost":
            raise OutcomeUnknownError("no answer; the request was lost")
        handle = Handle(platform=self.name, order=order.name, id=f"fake-{len(self.jobs)}")
        self.jobs.append(FakeJob(order=order, handle=handle, started_s=self._clock()))
        if fault == "reply_lost":
            raise OutcomeUnknownError("no answer; the reply was lost")
        return handle

    async def find(self, name: str) -> Handle | None:
        self._answer()
        return next((job.handle for job in self._listed() if job.order.name == name), None)

    async def observe(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        self._answer()
        known = {job.handle: job for job in self.jobs}
        return {handle: _observation(known.get(handle)) for handle in handles}

    async def stop(self, handle: Handle) -> None:
        """Stop a GPU job, which happens at once."""
        self._answer()
        for job in self.jobs:
            if job.handle == handle:
                job.num_stops += 1
                self._end(job, Phase.STOPPED, "stopped")

    async def list_owned(self, prefix: str) -> Sequence[Handle]:
        return [job.handle for job in self._listed() if job.order.name.startswith(prefix) and not job.phase.is_over]

    def job(self, name: str) -> FakeJob:
        """Return the GPU job that was started last for the order of this name."""
        return next(job for job in reversed(self.jobs) if job.order.name == name)

    def run(self, name: str) -> None:
        """Let the GPU workers of a GPU job begin to run."""
        self.job(name).phase = Phase.RUNNING

    def finish(self, name: str) -> None:
        """Let the GPU workers of a GPU job exit with 0."""
        self._end(self.job(name), Phase.SUCCEEDED, "")

    def fail(self, name: str, reason: str, detail: str = "", failure: Failure | None = None) -> None:
        """Let the platform end a GPU job as failed."""
        self._end(self.job(name), Phase.FAILED, reason, detail, failure)

    def kill_workers(self, name: str, count: int = 1) -> None:
        """Kill `count` GPU workers of a GPU job, which fails when none is left."""
        job = self.job(name)
        job.ended_s.extend([self._clock()] * min(count, job.workers_alive))
        if not job.workers_alive:
            self._end(job, Phase.FAILED, "killed")

    @property
    def billed_usd(self) -> float:
        """The cost of all GPU jobs up to now."""
        return sum(self._billed_usd(job) for job in self.jobs)

    def _billed_usd(self, job: FakeJob) -> float:
        ends = [*job.ended_s, *[self._clock()] * job.workers_alive]
        return sum(math.ceil(end - job.started_s) for end in ends) * job.order.offer.usd_per_hour / 3600

    def _answer(self) -> None:
        if self.refuses:
            raise RejectedError(self.refuses)
        if self.num_blind:
            self.num_blind -= 1
            raise OutcomeUnknownError("no answer")

    def _listed(self) -> list[FakeJob]:
        seen_until_s = self._clock() - self.find_lag_s
        return [job for job in self.jobs if job.started_s <= seen_until_s]

    def _end(self, job: FakeJob, phase: Phase, reason: str, detail: str = "", failure: Failure | None = None) -> None:
        if not job.phase.is_over:
            job.phase, job.reason, job.detail, job.failure = phase, reason, detail, failure
            job.ended_s.extend([self._clock()] * job.workers_alive)


def _observation(job: FakeJob | None) -> Observation:
    if job is None:
        return Observation(phase=Phase.GONE)
    alive = job.workers_alive if job.phase is Phase.RUNNING else 0
    return Observation(phase=job.phase, workers_alive=alive, reason=job.reason, detail=job.detail, failure=job.failure)
