"""Process 1 of a RunPod pod: it runs the pod's GPU workers, then ends the pod.

`python -m gpu_jobs.platforms.runpod.pod_worker --api https://api.runpod.io CAMPAIGN …`, the rest as for
`gpu_jobs.worker.machine`.
The pod is terminated if the GPU workers succeeded, and stopped if they failed, so that the orchestrator sees the
failure. This process returns only when RunPod ends the container, since RunPod would start it again. If the pod's own
key may not end the pod, it asks again from time to time until the orchestrator or the reaper ends the pod.
"""

import argparse
import itertools
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import httpx

from gpu_jobs.platforms.google_account import with_google_account

log = logging.getLogger("gpu_jobs.platforms.image")
_KEYS = ("FANFOLD_POD_KEY", "RUNPOD_API_KEY")
"""Variables that may hold an API key: the user's, from a RunPod secret, then the pod's own, which may be too weak."""
_DEADLINE_S = 30.0


def main() -> None:
    """Run the pod; returns only after a signal."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(
        prog="python -m gpu_jobs.platforms.runpod.pod_worker", description="The first process of a RunPod pod."
    )
    parser.add_argument("--api", required=True, help="address of RunPod's REST API")
    arguments, machine = parser.parse_known_args()
    pod = os.environ["RUNPOD_POD_ID"]
    code, is_stopped = _run([sys.executable, "-m", "gpu_jobs.worker.machine", *machine, "--handle", pod])
    if is_stopped:
        return
    log.info("all GPU workers have ended, exit code %d; ending the pod", code)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: os._exit(0))
    for pause_s in itertools.chain((1.0, 5.0, 20.0), itertools.repeat(60.0)):
        end_pod(f"{arguments.api}/v2/pods/{pod}", is_well=code == 0)
        time.sleep(pause_s)


def _run(command: list[str]) -> tuple[int, bool]:
    """The exit code of the GPU workers, and whether a signal came; orphaned processes are reaped, as process 1 must."""
    workers = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=with_google_account(os.environ))
    signals: list[int] = []

    def pass_on(signum: int, _: object) -> None:
        signals.append(signum)
        with suppress(ProcessLookupError):
            os.kill(workers.pid, signal.SIGTERM)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, pass_on)
    pid, status = 0, 0
    while pid != workers.pid:
        pid, status = os.waitpid(-1, 0)
    workers.returncode = os.waitstatus_to_exitcode(status)
    return workers.returncode, bool(signals)


def end_pod(url: str, *, is_well: bool) -> None:
    """Ask RunPod to terminate this pod, or to stop it if GPU workers failed; a refusal is only logged."""
    key = next((value for name in _KEYS if (value := os.environ.get(name))), "")
    with httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=_DEADLINE_S) as client:
        try:
            if is_well and client.delete(url).is_success:
                return
            client.post(f"{url}/action", json={"action": "stop"}).raise_for_status()
        except httpx.HTTPError as error:
            log.warning("the pod cannot end itself (%s); the orchestrator or the reaper will", error)


if __name__ == "__main__":
    main()
