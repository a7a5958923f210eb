"""An app of functions that do what containers may do, deployed once to Modal's emulator."""

import os

import modal
import pytest

from tests.gpu_jobs.emulators.modal_functions import APP, FUNCTIONS, deploy


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("app") / "conformance.py"
    path.write_text(FUNCTIONS)
    return path


@pytest.fixture
def cloud(modal_cloud, script):
    """The emulator with the app, deployed by Modal's command line once."""
    if not any(app.name == APP for app in modal_cloud.records.apps.values()):
        deploy(script)
    return modal_cloud


@pytest.fixture
def client(cloud):
    return modal.Client.from_credentials(os.environ["MODAL_TOKEN_ID"], os.environ["MODAL_TOKEN_SECRET"])


@pytest.fixture
def function(client):
    return lambda name: modal.Function.from_name(APP, name, client=client)
