"""The first process of a Cloud Run task: it starts the GPU worker that the task's environment names.

`python -m gpu_jobs.platforms.cloud_run.worker CAMPAIGN --order NAME`
"""

import os
import sys
from collections.abc import Mapping


def place(environ: Mapping[str, str]) -> list[str]:
    """Arguments of the GPU worker: the slot is the task's number, the handle is the execution's name and that."""
    index, execution = environ["CLOUD_RUN_TASK_INDEX"], environ["CLOUD_RUN_EXECUTION"]
    return ["--slot", index, "--handle", f"{execution}/{index}"]


if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-m", "gpu_jobs.worker", *sys.argv[1:], *place(os.environ)])  # noqa: S606
