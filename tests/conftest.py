"""No test may reach a cloud: where its variable is not set, Modal's client goes to the real one."""

import os

import hypothesis
import pytest

from tests.project import ROOT

os.environ["MODAL_SERVER_URL"] = "http://127.0.0.1:9"
os.environ["MODAL_CONFIG_PATH"] = "/nonexistent"
# Two threads of torch on cores that others use too take several times the seconds of one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
hypothesis.settings.register_profile("busy", deadline=None)  # other tests run beside
hypothesis.settings.load_profile("busy")
# GPU workers find this checkout, and workloads of tests as "tests.<folder>.<module>:<Class>".
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def pytest_xdist_make_scheduler(config, log):
    """Under pytest-xdist, tests of one group run in one process: what they share is expensive, or there only once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    return ByGroup(config, log)


def group_of(nodeid):
    """A whole package, a file, or one test where each is a long campaign of its own."""
    if "modal" in nodeid.lower() and not nodeid.startswith("tests/flows/"):
        return "modal"  # one emulator and its warm containers
    for folder in ("tests/flows/", "tests/gpu_jobs/workloads/text/", "tests/gpu_jobs/workloads/training/"):
        if nodeid.startswith(folder):
            return folder  # one Prefect server; tiny models
    return nodeid if nodeid.startswith(("tests/chaos/", "tests/contracts/")) else nodeid.partition("::")[0]


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
