"""What the platform `local` tells of processes that failed."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from gpu_jobs.jobs.failures import Failure
from gpu_jobs.jobs.offers import LOCAL
from gpu_jobs.jobs.orders import Phase
from gpu_jobs.platforms.local import LocalPlatform
from gpu_jobs.testing import an_order


@pytest.mark.parametrize(
    ("signum", "reason", "failure"),
    [
        (None, "exit code 3", Failure.USER_CODE),
        (signal.SIGKILL, "killed by SIGKILL", Failure.OUT_OF_MEMORY),
        (signal.SIGUSR1, "killed by SIGUSR1", Failure.UNKNOWN),
    ],
)
async def test_a_process_is_told_by_its_exit_code(tmp_path, signum, reason, failure):
    """Nobody reads its log, where the missing campaign is called what it likes."""
    platform = LocalPlatform(log_dir=tmp_path)
    campaign = tmp_path / "image quota of model credits"
    handle = await platform.start(an_order(campaign_uri=str(campaign), offer=LOCAL))
    if signum is not None:
        os.kill(int(handle.id.partition("@")[0]), signum)

    give_up_at = time.monotonic() + 60
    while not (seen := (await platform.observe([handle]))[handle]).phase.is_over:
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.05)

    assert (seen.phase, seen.reason, seen.failure) == (Phase.FAILED, reason, failure)
    assert ("image quota of model credits" in seen.detail) == (signum is None)


def test_a_process_that_leaves_gpu_workers_at_work_ends_without_a_warning(tmp_path):
    """They outlive it on purpose."""
    code = f"""
import asyncio, pathlib
from gpu_jobs.jobs.offers import LOCAL
from gpu_jobs.platforms.local import LocalPlatform
from gpu_jobs.testing import an_order
order = an_order(campaign_uri={str(tmp_path / "none")!r}, offer=LOCAL, num_workers=2)
print(asyncio.run(LocalPlatform(pathlib.Path({str(tmp_path)!r})).start(order)).id)
"""

    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)

    assert len(done.stdout.split(",")) == 2
    assert "still running" not in done.stderr
