"""Launch GPU jobs on RunPod, in the modes of the environment, and die of SIGKILL at one await point after another.

`python -m tests.chaos.killed_launches STORE_ROOT COUNT JOB_HOURS`: the orchestrator of campaign `launch-NN` dies
before step NN of its launch; the first that outlives its launch dies after it. Prints how many there were.
"""

import os
import signal
import sys

from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.loop import Loop
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.platforms.event_loop import Background
from gpu_jobs.platforms.runpod.adapter import RunPodPlatform


class Steps:
    """Awaits a coroutine, and counts; at step `last` this process is over."""

    def __init__(self, coroutine, last):
        self._inner = coroutine.__await__()
        self._last = last

    def __await__(self):
        act, value, number = self._inner.send, None, 0
        while True:
            if number == self._last:
                os.kill(os.getpid(), signal.SIGKILL)
            number += 1
            try:
                waited_for = act(value)
            except StopIteration as end:
                return end.value
            try:
                act, value = self._inner.send, (yield waited_for)
            except BaseException as error:
                act, value = self._inner.throw, error


class DeadlyBackground(Background):
    def __init__(self, last):
        super().__init__()
        self._last = last

    def run(self, coroutine):
        async def killed():
            return await Steps(coroutine, self._last)

        return super().run(killed())


def launch(uri, last, job_hours):
    """One turn of the loop orders a GPU job and starts it."""
    campaign = Campaign.open(uri)
    policy = Policy(platforms=("runpod",), max_workers=1, heartbeat_s=0.5, job_hours=job_hours)
    with DeadlyBackground(last) as background:
        platforms = [RunPodPlatform()]
        loop = Loop(campaign.ledger, campaign.plan, policy, platforms, owner="dies", background=background)
        loop.open()
        loop.turn()


def main():
    root, count, job_hours = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    for last in range(count):
        if (child := os.fork()) == 0:
            launch(f"{root}/launch-{last:02d}", last, job_hours)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            print(last)
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
