"""Google Cloud Run Jobs on this machine, for Google's own clients over gRPC and REST.

Models: every task is a real process with the documented environment and a session of its own; an image is an `Image`,
which says what its containers add to the command and the environment. The answers follow the documentation of the
service and incident notes of other users; nothing here was compared with the real service.

Left out: containers (no file system, user or network of their own, memory and CPU limits only as numbers), TLS and
credentials, IAM beyond a list of permissions that are denied, secrets and volumes (recorded, neither resolved nor
mounted), UpdateJob, DeleteExecution, etags, field masks, deletion and expiry times, log contents
(each attempt has a log file), start and run tokens, VPC, Workflows, and every service but Jobs, Executions, Tasks and
Operations. Deleting a job is done at once where the service may take seconds. Whether the siblings of a failed task
are cancelled is not settled by the documentation; here they run on.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpu_jobs.emulators.base import Image, Rehearsal
from gpu_jobs.emulators.cloud_run.bill import Bill, BillLine
from gpu_jobs.emulators.cloud_run.script import Fault, TaskFault
from gpu_jobs.emulators.cloud_run.server import CloudRunEmulator

__all__ = ["Bill", "BillLine", "CloudRunEmulator", "Fault", "Image", "TaskFault", "rehearsal"]


@contextmanager
def rehearsal(folder: Path) -> Iterator[Rehearsal]:
    """Serve Cloud Run with one project and an image that is this Python and environment; logs are kept in `folder`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    image = Image(env={**os.environ, "PATH": path})
    with CloudRunEmulator({"fanfold": image}, log_dir=folder) as emulator:
        environ = {
            "FANFOLD_CLOUD_RUN_EMULATOR": emulator.grpc_address,
            "FANFOLD_CLOUD_RUN_PROJECT": "emulated",
            "FANFOLD_CLOUD_RUN_REGION": "europe-west4",
            "FANFOLD_CLOUD_RUN_GPU": "nvidia-l4",
            "FANFOLD_CLOUD_RUN_IMAGE": "fanfold",
        }
        yield Rehearsal(environ=environ, bill=emulator.world.bill.summary)
