"""RunPod's emulator for the adapter's own tests. Pods here run `sleep`, whatever they are told to run."""

import os
from datetime import UTC, datetime

import pytest
from pytest_socket import socket_allow_hosts

from gpu_jobs.emulators.runpod import Image, RunPodEmulator
from gpu_jobs.platforms.runpod import api
from gpu_jobs.platforms.runpod.adapter import RunPodPlatform
from gpu_jobs.testing import an_order
from tests.contracts.runpod_bench import runpod_settings

CRASH = Image(argv=["false"], env=os.environ)


@pytest.fixture(autouse=True)
def _loopback_only():
    socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)


@pytest.fixture
def runpod(tmp_path):
    """At the end nothing is on the bill, and a script is used up."""
    images = {"fanfold": Image(argv=["sh", "-c", "sleep infinity"], env=os.environ), "crash": CRASH}
    with RunPodEmulator(images, log_dir=tmp_path, quota_per_minute=None, grace_s=0.1) as emulator:
        yield emulator
        assert emulator.world.script.faults == []
    api._shared.cache_clear()  # another emulator may get the same port
    assert emulator.world.bill.num_open == 0


@pytest.fixture
def open_platform(runpod):
    def opened(**settings):
        return RunPodPlatform(runpod_settings(runpod, **settings), deadline_s=5.0, poll_s=0.05)

    return opened


@pytest.fixture
def platform(open_platform):
    return open_platform()


@pytest.fixture
def order(platform):
    """Four GPU workers on one of the offers."""
    return an_order(offer=platform.offers()[0], num_workers=4, expires_at=datetime(2026, 11, 25, tzinfo=UTC))
