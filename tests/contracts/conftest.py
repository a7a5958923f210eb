"""What the contract suites share: emulators, each started once, and sockets that reach this machine only."""

import os

import pytest
from pytest_socket import socket_allow_hosts

from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.store.gcs import GcsStore


def pytest_runtest_setup():
    socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)


@pytest.fixture(scope="session")
def gcs_server():
    with GcsEmulator() as emulator:
        emulator.make_bucket("contracts")
        yield emulator


@pytest.fixture
def gcs(gcs_server, monkeypatch):
    """The emulator, where clients look for it; a test must use up its script of faults."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    gcs_server.requests.clear()
    yield gcs_server
    left = list(gcs_server.faults)
    gcs_server.faults.clear()
    assert left == []


@pytest.fixture
def gcs_store(gcs):
    """A store of this test's own."""
    return GcsStore(f"gs://contracts/{os.urandom(4).hex()}", deadline_s=10)
