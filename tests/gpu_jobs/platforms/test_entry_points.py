"""How GPU workers learn on each platform which they are and where their Google account is."""

import asyncio
import signal
import stat
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpu_jobs.ledger.ledger import Ledger
from gpu_jobs.platforms.cloud_run.worker import place
from gpu_jobs.platforms.google_account import with_google_account
from gpu_jobs.platforms.modal.worker import _environment
from gpu_jobs.platforms.runpod import serverless_worker
from gpu_jobs.testing import an_offer
from tests.contracts.bench import CampaignBench


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


class Bench(CampaignBench):
    platform = SimpleNamespace(offers=lambda: [an_offer()])


@pytest.fixture
def a_new_serverless_worker(monkeypatch):
    monkeypatch.setattr(serverless_worker, "_HAS_SERVED", threading.Event())
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("a_new_serverless_worker")
async def test_from_its_second_job_on_a_serverless_worker_of_runpod_is_warm(tmp_path):
    """Its GPU workers say so in their heartbeats."""
    bench = Bench(tmp_path)
    order = bench.order(num_workers=2)

    for slot in (0, 1):
        asked = {"campaign": bench.store.uri, "order": order.name, "slot": slot}
        job = asyncio.create_task(serverless_worker.handler({"id": f"job-{slot}", "input": asked}))
        while slot not in (told := {beat.slot: beat.is_warm for beat, _ in Ledger(bench.store).heartbeats()}):
            assert not job.done(), job.result()
            await asyncio.sleep(0.05)
        job.cancel()
        with suppress(asyncio.CancelledError):
            await job

    assert told == {0: False, 1: True}
