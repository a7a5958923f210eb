"""A rehearsal reaches no real account, whatever the environment, the settings and the vendors' own files say."""

import asyncio
import os
import subprocess
import sys

import pytest

from gpu_jobs import platforms
from gpu_jobs.errors import RefusedError
from gpu_jobs.platforms.cloud_run.api import open_clients
from gpu_jobs.platforms.modal.api import open_client
from gpu_jobs.platforms.modal.settings import ModalSettings
from gpu_jobs.platforms.runpod.api import open_account
from gpu_jobs.platforms.runpod.settings import RunPodSettings
from gpu_jobs.store import open_store

KEYS = {
    "RUNPOD_API_KEY": "real",
    "MODAL_TOKEN_ID": "ak-real",
    "MODAL_TOKEN_SECRET": "as-real",
    "GOOGLE_APPLICATION_CREDENTIALS": "/real.json",
    "FANFOLD_RUNPOD_IMAGE": "mine",
    "FANFOLD_CLOUD_RUN_PROJECT": "mine",
    "FANFOLD_CLOUD_RUN_IMAGE": "mine",
}
LOOK = """
import os
from gpu_jobs.errors import RefusedError
from gpu_jobs.platforms import open_platform
for name in ("cloud_run", "modal", "runpod"):
    try:
        open_platform(name)
        print(name, "opened")
    except RefusedError as error:
        print(name, "refused", "not emulated in this rehearsal" in str(error))
print([value for value in os.environ.values() if value in ("real", "ak-real", "as-real", "/real.json")])
"""


def test_what_is_not_emulated_is_refused_and_real_keys_are_gone(tmp_path):
    """`--platforms gcs` left Modal, Cloud Run and RunPod real."""
    command = [sys.executable, "-m", "gpu_jobs.cli", "rehearse", "--platforms", "gcs", "--", sys.executable, "-c", LOOK]

    told = subprocess.run(
        command, cwd=tmp_path, env=os.environ | KEYS, capture_output=True, text=True, timeout=60, check=True
    ).stdout

    assert "cloud_run refused True\nmodal refused True\nrunpod refused True\n[]\n" in told


def test_every_adapter_and_the_bucket_refuse_anything_but_an_emulator(monkeypatch):
    """Also where somebody opens them without the table of platforms."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("FANFOLD_REHEARSAL", "gcs")

    with pytest.raises(RefusedError, match="FANFOLD_RUNPOD_EMULATOR: is not set, and a rehearsal"):
        open_account(RunPodSettings(api_key="real"))
    with pytest.raises(RefusedError, match="FANFOLD_MODAL_EMULATOR: is not set, and a rehearsal"):
        asyncio.run(open_client(ModalSettings()))
    with pytest.raises(RefusedError, match="FANFOLD_CLOUD_RUN_EMULATOR: is not set, and a rehearsal"):
        open_clients("")
    with pytest.raises(RefusedError, match="'gs://mine/runs' is real"):
        open_store("gs://mine/runs")
    for refused in (platforms.open_platform, lambda name: platforms.checks(name, "gs://mine"), platforms.deploy):
        with pytest.raises(RefusedError, match="'modal' is not emulated in this rehearsal"):
            refused("modal")
    assert platforms.open_platform("local").name == "local"
