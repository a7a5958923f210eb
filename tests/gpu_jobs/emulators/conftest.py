"""What the tests of emulators share: sockets that reach this machine only, and one emulator of Cloud Run for each."""

import sys

import pytest
from pytest_socket import socket_allow_hosts

from gpu_jobs.emulators.cloud_run import CloudRunEmulator, Image
from tests.gpu_jobs.emulators.cloud_run_client import Client


@pytest.fixture(autouse=True)
def _loopback_only():
    socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)


@pytest.fixture
def emulator(tmp_path):
    """One that is impatient, with an image that runs Python code."""
    image = Image(argv=(sys.executable, "-c"))
    with CloudRunEmulator({"code": image}, log_dir=tmp_path, stop_grace_s=0.5) as emulator:
        yield emulator
    assert emulator.world.bill.num_running == 0, "an instance outlived its emulator"


@pytest.fixture
def client(emulator):
    """Over gRPC, where the transport does not matter."""
    return Client(emulator, "grpc")


@pytest.fixture(params=["grpc", "rest"])
def either(request, emulator):
    """Over each transport."""
    return Client(emulator, request.param)
