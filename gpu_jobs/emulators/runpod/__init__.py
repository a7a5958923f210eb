"""RunPod on loopback: REST v2 for pods, and real containers, as processes of this machine.

It does what RunPod documents, and what users report where RunPod is silent: a command that ends is started again while
the pod reads RUNNING; a stopped pod bills its volume at twice the rate; a pod's own key may end its pod or not
(`pod_key_may`). Scripted: stock, refusals, lost replies, list lag, pages, quota, a container that never comes up.

Left out: GraphQL, templates, clusters, spot, ports, the logs of a pod, images (a container runs what is installed
here), file systems of its own (each container sees this machine's) and GPUs.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpu_jobs.emulators.base import Rehearsal
from gpu_jobs.emulators.runpod.script import Fault
from gpu_jobs.emulators.runpod.server import RunPodEmulator
from gpu_jobs.emulators.runpod.world import Image

__all__ = ["Fault", "Image", "RunPodEmulator", "rehearsal"]


@contextmanager
def rehearsal(folder: Path) -> Iterator[Rehearsal]:
    """RunPod with an image that is this Python and this environment; containers' logs stay in `folder`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    image = Image(env={**os.environ, "PATH": path})
    with RunPodEmulator({"fanfold": image}, log_dir=folder) as emulator:
        environ = {
            "FANFOLD_RUNPOD_EMULATOR": emulator.url,
            "FANFOLD_RUNPOD_API_KEY": emulator.world.key,
            "FANFOLD_RUNPOD_IMAGE": "fanfold",
            "FANFOLD_RUNPOD_GPU": "NVIDIA L4",
        }
        yield Rehearsal(environ=environ, bill=emulator.world.bill.summary)
