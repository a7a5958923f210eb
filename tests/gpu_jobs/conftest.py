"""What the tests of the campaign loop share."""

from itertools import islice

import pytest

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.jobs.orders import Phase
from gpu_jobs.ledger.journal import Journal
from gpu_jobs.testing import FakeClock, FakeGpuWorker, FakePlatform, MemoryStore, a_policy, plan_campaign

MAX_LOOKS = 200


class World:
    """A campaign of six items in three chunks, and a platform whose GPU workers do as the test says."""

    def __init__(self, *faults, **platform):
        self.store = MemoryStore()
        self.plan = plan_campaign(self.store)
        self.platform = FakePlatform(*faults, **platform)
        self.num_boots = 0

    def run(self, policy=None):
        """A flow run of its own: nothing is shared but the store and the platform."""
        return Campaign(self.store, self.plan).run(policy or a_policy(), [self.platform], tick_s=0)

    def work(self, max_chunks=None):
        """All GPU workers that have started do their work, or so many chunks each, and exit."""
        for job in self.platform.jobs:
            if job.phase is Phase.STARTING:
                self.platform.run(job.order.name)
                self.num_boots += 1
                gpu = FakeGpuWorker(
                    self.store,
                    self.plan,
                    a_policy(),
                    worker_id=f"boot-{self.num_boots}",
                    monotonic=FakeClock(),
                    order=job.order.name,
                )
                if max_chunks is None:
                    gpu.work_on()
                for _ in range(max_chunks or 0):
                    gpu.work_through(gpu.lease())
                gpu.beat("over", "nothing is left to lease")
                self.platform.finish(job.order.name)

    def run_to_the_end(self, policy=None, act=None):
        """The last progress of a flow run, with `act` after every look."""
        last = None
        for progress in islice(self.run(policy), MAX_LOOKS):
            last = progress
            (act or self.work)()
        assert last.closed
        return last

    @property
    def entries(self):
        return Journal(self.store).read().entries

    def kinds(self):
        return [entry.kind for entry in self.entries]


@pytest.fixture
def new_world():
    """Makes a world, given the faults of its platform."""
    return World
