"""Fakes that work, for tests of Fanfold and of what is built on it: no network, no processes, no chance, no real time.

Faults are a script given beforehand. Nothing here is imported by the rest of the library.
"""

from gpu_jobs.testing.factories import a_plan, a_policy, an_offer, an_order, noop_rows, plan_campaign
from gpu_jobs.testing.memory import FakeClock, MemoryStore
from gpu_jobs.testing.platform import FakeJob, FakePlatform, StartFault
from gpu_jobs.testing.worker import FakeGpuWorker

__all__ = [
    "FakeClock",
    "FakeGpuWorker",
    "FakeJob",
    "FakePlatform",
    "MemoryStore",
    "StartFault",
    "a_plan",
    "a_policy",
    "an_offer",
    "an_order",
    "noop_rows",
    "plan_campaign",
]
