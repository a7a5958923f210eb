"""Working fakes, for tests of Fanfold and of what is built on it: no network, processes, randomness or real time.

Tests script the faults in advance. Nothing else in the library imports this package.
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
