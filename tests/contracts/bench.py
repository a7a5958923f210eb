"""What the benches of real GPU workers share: a campaign in a folder of this machine, where all GPU workers run."""

import os
import sys
from pathlib import Path

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.jobs.names import order_prefix
from gpu_jobs.ledger.journal import Journal, Opened, Ordered
from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.testing import a_policy, an_order
from tests.project import ROOT


def image_environ(**env):
    """What a container of the image `fanfold` has: this Python and this checkout."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **env}


class CampaignBench:
    """A subclass makes `platform`, kills GPU workers, and closes."""

    def __init__(self, folder):
        (folder / "data.csv").write_text("id\n" + "".join(f"{number}\n" for number in range(500)))
        spec = CampaignSpec(
            store_root=str(folder / "store"),
            dataset=str(folder / "data.csv"),
            workload="noop",
            params={"sleep_s": 1.0},
            chunk_weight=1.0,
        )
        policy = a_policy(platforms=("local",), heartbeat_s=0.2)  # a cloud could not reach this folder
        self.store = open_campaign(spec, policy).store
        self.journal = Journal(self.store)
        self.at = an_order().expires_at
        self.journal.append(Opened(owner="test", policy=policy, at=self.at), upon=self.journal.read())

    def order(self, num_workers=1, name=None):
        state = self.journal.read()
        order = an_order(
            name=name or f"{order_prefix(self.store.uri)}-{state.next_seq:04d}",
            campaign_uri=self.store.uri,
            offer=self.platform.offers()[0],
            num_workers=num_workers,
        )
        assert self.journal.append(Ordered(order=order, owner="test", reason="test", at=self.at), upon=state)
        return order

    def tick(self):
        pass

    def is_working(self, handle):
        return any(beat.order == handle.order and beat.leases for beat, _ in Ledger(self.store).heartbeats())
