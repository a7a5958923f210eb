"""Modal on this machine, for Modal's own client, command line and container entry point.

Models: the service is generated from the descriptors of the installed client. Every container is a real process of
`python -m modal._container_entrypoint` in a session of its own, in which the deployed function runs. The answers follow
the client's source, Modal's documentation and public issue threads; nothing here was compared with the real service.

Left out: isolation (containers have no file system, user or network of their own; CPU, memory and GPUs are only
numbers on the bill), image builds (an image is this Python with the image's `ENV` lines and source files), the content
of volumes and bucket mounts, `.map()`, generators, classes, web functions, schedules, sandboxes, queues, memory
snapshots, clusters, input concurrency, batches, the input plane, logs over RPC (each container has a log file),
environments, roles, and everything of the command line but `deploy` and `app stop`. Entries of a `Dict` never expire.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpu_jobs.emulators.base import Rehearsal
from gpu_jobs.emulators.modal.bill import Bill, BillLine
from gpu_jobs.emulators.modal.script import Fault
from gpu_jobs.emulators.modal.server import ModalEmulator

__all__ = ["Bill", "BillLine", "Fault", "ModalEmulator", "rehearsal"]


@contextmanager
def rehearsal(folder: Path) -> Iterator[Rehearsal]:
    """Serve Modal for `fanfold rehearse`; the files and logs of containers are kept in `folder`."""
    with ModalEmulator(folder) as emulator:
        yield Rehearsal(environ=emulator.environ, bill=lambda: str(emulator.bill))
