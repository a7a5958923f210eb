"""What the doctor finds, and what it says to do."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.platforms.runpod.doctor import checks
from tests.contracts.runpod_bench import runpod_settings


def told(runpod, store_root="gs://fanfold/runs", **settings):
    """What the doctor says, by the name of the check; in words only where it is not well."""
    found = list(checks(store_root, runpod_settings(runpod, **settings)))
    assert all(check.is_ok or check.found for check in found)
    return {check.name: "" if check.is_ok else f"{check.found} -> {check.fix}" for check in found}


def test_the_doctor_finds_all_well(runpod, monkeypatch):
    """With everything that a campaign needs."""
    runpod.world.volumes["vol1"] = "EU-RO-1"
    with GcsEmulator() as gcs:
        gcs.make_bucket("fanfold")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        found = told(
            runpod,
            gpu="NVIDIA L4",
            secrets={"SERVICE_ACCOUNT_JSON": "bucket_key"},
            volume="vol1",
            data_centers=("EU-RO-1",),
        )

    assert len(found) == 8
    assert set(found.values()) == {""}


@pytest.mark.parametrize(
    "case",
    [
        ("settings", {"image": ""}, "FANFOLD_RUNPOD_IMAGE is not set -> Run `export"),
        ("settings", {"gpu": "NVIDIA T1000"}, "'NVIDIA T1000' is none of NVIDIA A100 80GB PCIe, NVIDIA A40, "),
        ("API key", {"api_key": "wrong"}, "RunPod refuses the API key"),
        ("stock of NVIDIA L4, secure", {}, "none is free just now -> Wait, or allow other GPU types"),
        ("pods past their deadline", {}, "ff-late-0002-w0-3-t1764028800 -> Run the flow reap-orphans"),
        ("network volume", {"volume": "vol1"}, "it is in EU-RO-1, and pods may be elsewhere -> Run `export"),
        ("network volume", {"volume": "vol2"}, "network volume vol2 not found"),
        ("the bucket's key", {}, "GPU workers get none"),
        ("store", {}, "no-such-bucket"),
    ],
)
async def test_the_doctor_says_what_is_missing_and_what_to_do(platform, order, runpod, monkeypatch, case):
    """Beside a pod of last year."""
    name, settings, words = case
    late = replace(order, name="ff-late-0002", expires_at=datetime(2025, 11, 25, tzinfo=UTC))
    await platform.start(late)
    runpod.world.volumes["vol1"] = "EU-RO-1"
    runpod.world.stock["NVIDIA L4", "EU-RO-1"] = 0
    with GcsEmulator() as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)

        found = await asyncio.to_thread(told, runpod, "gs://no-such-bucket/runs", **settings)

    assert words in found[name]
