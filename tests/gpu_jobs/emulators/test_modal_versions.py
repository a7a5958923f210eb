"""The oldest client that is allowed finds the same at the emulator, and its container entry point too."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.project import ROOT

OLDEST = "1.5.5"
TESTS = ("tests/gpu_jobs/emulators/modal", "tests/gpu_jobs/platforms/modal", "tests/contracts/test_platform.py")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_oldest_client_finds_the_same(tmp_path):
    """In an environment of its own: that client, and everything else as here."""
    python = tmp_path / "venv/bin/python"
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", f"modal=={OLDEST}")
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip()
    (Path(site) / "the-rest.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    assert run(python, "-c", "import modal; print(modal.__version__)").strip() == OLDEST

    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", "modal", *TESTS)


def run(*command):
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout
