"""Tiny models, each written once."""

import pytest

from tests.gpu_jobs.workloads.tiny_models import write_bert, write_llama


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("classifier"), labels=("good", "bad", "ugly"))


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch, tmp_path):
    """GPU workers keep logs and downloads with the test."""
    monkeypatch.setenv("FANFOLD_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.setenv("FANFOLD_MODEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
