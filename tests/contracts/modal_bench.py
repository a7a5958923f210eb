"""Modal as the emulator plays it, for the platform contract: real GPU workers in the real container entry point."""

import psutil
from havoc import wait_for

from gpu_jobs.campaign import open_campaign
from gpu_jobs.journal import Journal, Opened, Ordered
from gpu_jobs.ledger import Ledger
from gpu_jobs.loop import order_prefix
from gpu_jobs.platforms.modal import ModalPlatform
from gpu_jobs.settings import Settings
from gpu_jobs.split import CampaignSpec
from gpu_jobs.testing import a_policy, an_order


class ModalBench:
    """All benches share one emulator, and so its warm containers."""

    unknown_id = "never"

    def __init__(self, ask):
        self.cloud = ask("modal_cloud")
        folder = ask("tmp_path")
        self.platform = ModalPlatform(Settings(modal_emulator=self.cloud.url), deadline_s=20.0, find_lag_s=60.0)
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
        self.journal.append(Opened(opener="test", policy=policy, at=self.at), upon=self.journal.read())

    def order(self, num_workers=1, name=None):
        state = self.journal.read()
        order = an_order(
            name=name or f"{order_prefix(self.store.uri)}-{state.next_seq:04d}",
            campaign_uri=self.store.uri,
            offer=self.platform.offers()[0],
            num_workers=num_workers,
        )
        assert self.journal.append(Ordered(order=order, opener="test", reason="test", at=self.at), upon=state)
        return order

    def kill_worker(self, handle):
        """The GPU worker's process, in its container."""
        wait_for(lambda: workers(handle.order))
        workers(handle.order)[0].kill()

    def tick(self):
        pass

    def is_working(self, handle):
        return any(beat.order == handle.order and beat.leases for beat, _ in Ledger(self.store).heartbeats())

    def close(self):
        """Nothing of this test is left at work in any container."""
        self.cloud.cancel_all()
        self.cloud.wait(lambda: not self.cloud.unfinished() and not workers())


def workers(order=""):
    """Processes of GPU workers in containers of an order, the oldest first."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "create_time", "status"]):
        command, environ = process.info["cmdline"] or [], process.info["environ"] or {}
        is_one = "gpu_jobs.worker" in command and "MODAL_TASK_ID" in environ
        if is_one and order in ("", command[command.index("--order") + 1]):
            found.append(process)
    return sorted(found, key=lambda each: each.info["create_time"])
