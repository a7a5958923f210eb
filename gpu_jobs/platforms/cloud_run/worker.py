"""Start of a Cloud Run task: which GPU worker it is stands in its environment, and becomes arguments.

`python -m gpu_jobs.platforms.cloud_run.worker CAMPAIGN --order NAME`
"""

import os
import sys
from collections.abc import Mapping


def place(environ: Mapping[str, str]) -> list[str]:
    """The slot, which is the task's number, and the handle, which is its execution's name and that number."""
    index, execution = environ["CLOUD_RUN_TASK_INDEX"], environ["CLOUD_RUN_EXECUTION"]
    return ["--slot", index, "--handle", f"{execution}/{index}"]


if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-m", "gpu_jobs.worker", *sys.argv[1:], *place(os.environ)])  # noqa: S606
