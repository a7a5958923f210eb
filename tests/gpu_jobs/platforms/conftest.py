"""The toy platform, installed as a package of somebody else would be: a module and its entry point."""

import sys
from pathlib import Path

import pytest

from gpu_jobs.platforms import known_platforms

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The module `toy_platform`; processes that a test starts know the platform too."""
    site = tmp_path / "site"
    metadata = site / "toy_platform-1.dist-info"
    metadata.mkdir(parents=True)
    (site / "toy_platform.py").write_text((HERE / "toy_platform.py").read_text())
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-platform\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[fanfold.platforms]\ntoy = toy_platform:ROW\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    monkeypatch.delitem(sys.modules, "toy_platform", raising=False)
    known_platforms.cache_clear()
    import toy_platform

    yield toy_platform
    processes = [each for started in toy_platform.ToyPlatform.processes.values() for each in started]
    for process in processes:
        process.kill()
    for process in processes:
        process.wait(timeout=20)
    known_platforms.cache_clear()
