"""The doctor of Modal, at its emulator: what is missing, one line each, with what to do."""

import json

import pytest

from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.platforms.modal.deploy import deploy
from gpu_jobs.platforms.modal.doctor import checks

ROOT = "gs://campaigns/root"


@pytest.fixture
def bucket(monkeypatch):
    with GcsEmulator() as gcs:
        gcs.make_bucket("campaigns")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        yield gcs


@pytest.fixture
def own_app(modal_cloud, monkeypatch):
    monkeypatch.setenv("FANFOLD_MODAL_APP", "examined")
    monkeypatch.setenv("FANFOLD_MODAL_SECRETS", json.dumps(["bucket"]))
    monkeypatch.setitem(modal_cloud.records.named_secrets, "bucket", {"BUCKET_SAYS": "hello"})
    return modal_cloud


def found(store_root=ROOT):
    return {check.name: check for check in checks(store_root)}


def test_all_is_well_when_a_container_can_use_the_bucket(own_app, bucket):
    """Settings, token, secret, app, and an object made, read and deleted from inside a container."""
    assert "not deployed" in found()["app examined"].found
    deploy()

    well = found()

    assert [(name, check.is_ok) for name, check in well.items()] == [
        ("settings", True),
        ("token", True),
        ("secret bucket", True),
        ("app examined", True),
        (f"store {ROOT}", True),
    ]
    assert any(each.startswith("DELETE ") for each in bucket.requests)


def test_a_bucket_that_is_not_there_is_named(own_app, bucket):
    """As the container's own client tells it."""
    deploy()

    check = found("gs://no-such-bucket/root")["store gs://no-such-bucket/root"]

    assert not check.is_ok
    assert "no-such-bucket" in check.found
    assert "roles/storage.objectUser" in check.fix


def test_a_folder_is_no_store_for_a_cloud(own_app):
    """No container is started for it."""
    deploy()

    assert found("/tmp/store")["store /tmp/store"].fix == "use gs://bucket/prefix"


def test_what_is_missing_is_named_with_what_to_do(own_app, monkeypatch):
    """A GPU that does not exist, a wrong token, a secret that is not there."""
    own_app.records.named_secrets.pop("bucket")
    assert "modal secret create bucket" in found()["secret bucket"].fix

    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-wrong")
    (settings, token) = found().values()
    assert settings.is_ok
    assert "modal token new" in token.found

    monkeypatch.setenv("FANFOLD_MODAL_GPUS", json.dumps(["V100"]))
    (settings,) = found().values()
    assert settings.fix == "correct FANFOLD_MODAL_GPUS"
