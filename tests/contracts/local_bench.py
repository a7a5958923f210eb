"""This machine, for the platform contract: real GPU worker processes, and nothing between them and the adapter."""

import contextlib

import psutil

from gpu_jobs.platforms import local
from tests.contracts.bench import CampaignBench


class LocalBench(CampaignBench):
    """Real processes on a campaign that keeps them busy for longer than any test."""

    unknown_id = "999999@0.00"

    def __init__(self, ask):
        self.before = set(local._children)
        folder = ask("tmp_path")
        super().__init__(folder)
        self.platform = local.LocalPlatform(folder / "logs")

    def kill_worker(self, handle):
        """The first that is alive."""
        next(filter(None, map(local._alive, handle.id.split(",")))).kill()

    def close(self):
        """End, by their ids, the processes that this test has started, and theirs."""
        started = [child for identity, child in local._children.items() if identity not in self.before]
        processes = []
        for child in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(child.pid)
                processes += [process, *process.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for child in started:
            child.wait(timeout=20)
        _, left = psutil.wait_procs(processes, timeout=20)
        assert left == []


BENCHES = {"local": LocalBench}
