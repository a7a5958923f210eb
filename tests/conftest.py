"""No test may reach a cloud: where its variable is not set, Modal's client goes to the real one."""

import os

import pytest

from tests.project import ROOT

os.environ["MODAL_SERVER_URL"] = "http://127.0.0.1:9"
os.environ["MODAL_CONFIG_PATH"] = "/nonexistent"
# GPU workers find this checkout, and workloads of tests as "tests.<folder>.<module>:<Class>".
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


MODELS = {"llama", "bert", "classifier"}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Tests of one group run in one process, one after another: what they share is expensive, or there only once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None and (group := group_of(item)):
            item.add_marker(pytest.mark.xdist_group(group))


def group_of(item):
    if item.nodeid.startswith("tests/flows/"):  # a Prefect server takes seconds to start
        return "prefect"
    if "modal" in item.nodeid.lower():  # they share an emulator with its warm containers
        return "modal"
    return "models" if MODELS.intersection(item.fixturenames) else None


@pytest.fixture(scope="session")
def modal_server(tmp_path_factory):
    """Modal's emulator, one for all tests, since a cold start takes a second."""
    from gpu_jobs.emulators.modal import ModalEmulator

    with ModalEmulator(tmp_path_factory.mktemp("modal"), grace_s=1.0, max_losses=3) as emulator:
        yield emulator
    assert emulator.bill.num_running == 0


@pytest.fixture
def modal_cloud(modal_server, monkeypatch):
    """The same, where Modal's client looks for it; a test uses up its script and leaves nothing at work."""
    for name, value in modal_server.environ.items():
        monkeypatch.setenv(name, value)
    modal_server.calls.clear()
    yield modal_server
    left = list(modal_server.script.faults)
    modal_server.script.faults.clear()
    modal_server.cancel_all()
    assert left == []
    modal_server.wait(lambda: not modal_server.unfinished())
