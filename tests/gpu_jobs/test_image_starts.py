"""How GPU workers learn on each platform which they are and where their Google account is."""

import stat
from pathlib import Path

import pytest

from gpu_jobs.image.cloud_run_task import place
from gpu_jobs.image.google_account import with_google_account
from gpu_jobs.image.modal_worker import _environment


def test_the_key_of_a_service_account_becomes_a_file_that_nobody_else_reads(tmp_path, monkeypatch):
    """And leaves the environment of GPU workers; without one nothing changes."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    environ = with_google_account({"SERVICE_ACCOUNT_JSON": "{}", "OTHER": "1"})

    path = Path(environ.pop("GOOGLE_APPLICATION_CREDENTIALS"))
    assert environ == {"OTHER": "1"}
    assert path.read_text() == "{}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert with_google_account({"OTHER": "1"}) == {"OTHER": "1"}


def test_gpu_workers_on_modal_get_that_file_too(tmp_path, monkeypatch):
    """From the secret that their container has."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("SERVICE_ACCOUNT_JSON", "{}")

    environ = _environment()

    assert Path(environ["GOOGLE_APPLICATION_CREDENTIALS"]).read_text() == "{}"
    assert "SERVICE_ACCOUNT_JSON" not in environ


def test_a_cloud_run_task_is_the_gpu_worker_of_its_number():
    """Bound to its execution."""
    environ = {"CLOUD_RUN_TASK_INDEX": "2", "CLOUD_RUN_EXECUTION": "ff-1-abc"}

    assert place(environ) == ["--slot", "2", "--handle", "ff-1-abc/2"]
    with pytest.raises(KeyError, match="CLOUD_RUN_TASK_INDEX"):
        place({})
