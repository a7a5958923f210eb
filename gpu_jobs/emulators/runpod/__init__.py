"""RunPod on this machine, for the adapter, for RunPod's SDKs, and for what runs in its containers.

Models: REST v2 for pods and serverless endpoints, the queue's API, and the protocol of the worker SDK. Every container
is a real process, in a PID namespace of its own where the system allows it. The emulator does what RunPod documents,
and where RunPod documents nothing, what users report: a command that ends is restarted while the pod's status is
RUNNING; the volume of a stopped pod costs twice as much; a pod's own key may or may not end its pod (`pod_key_may`).
Nothing here was compared with the real service.

Left out: GraphQL, templates, clusters, spot, ports, logs (each container has a log file), images (a container runs what
is installed here), file systems of their own (a network volume is not mounted), GPUs, TLS, webhooks, streams, throttled
workers. How often a job is redelivered, the grace before SIGKILL and the page size are guesses; tests can set them.
"""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpu_jobs.emulators.base import Image, Rehearsal
from gpu_jobs.emulators.runpod.script import Fault
from gpu_jobs.emulators.runpod.server import RunPodEmulator

__all__ = ["Fault", "Image", "RunPodEmulator", "rehearsal"]


@contextmanager
def rehearsal(folder: Path) -> Iterator[Rehearsal]:
    """Serve RunPod with an image that is this Python and this environment; logs are kept in `folder`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    images = {"fanfold": Image(env={**os.environ, "PATH": path})}
    with RunPodEmulator(images, log_dir=folder, key=f"emulated-{secrets.token_hex(8)}") as emulator:
        environ = {
            "FANFOLD_RUNPOD_EMULATOR": emulator.url,
            "FANFOLD_RUNPOD_IMAGE": "fanfold",
            "RUNPOD_API_KEY": emulator.world.key,
        }
        yield Rehearsal(environ=environ, bill=emulator.world.bill.summary)
