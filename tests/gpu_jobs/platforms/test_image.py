"""What can be known of the image without a Docker engine."""

import json
import re
import shutil
import subprocess
import sys
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, distribution
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gpu_jobs.campaign.campaign import open_campaign
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.ledger.journal import Journal, Opened
from gpu_jobs.testing import a_policy, an_order
from tests.project import ROOT

IMAGE = ROOT / "gpu_jobs" / "platforms" / "image"
DOCKERFILE = (IMAGE / "Dockerfile").read_text().replace("\\\n", " ")
COPIED = [
    path
    for line in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.*) \S+$", DOCKERFILE, re.MULTILINE)
    for path in line.split()
]
EXTRAS = set(re.findall(r"--extra (\S+)", DOCKERFILE))


def sent():
    """The files that are sent to the build: those that the ignore file leaves, by git's rules.

    gcloud's rules are git's; Docker's differ in nothing that is used here.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-from", IMAGE / "Dockerfile.dockerignore"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(tracked.stdout.splitlines()) - set(listed.stdout.splitlines())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """What the image installs, built from nothing but what the image copies."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in sent():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", out, source], check=True, capture_output=True, timeout=120)
    return next(out.glob("*.whl"))


def test_what_is_copied_is_enough_to_install_a_gpu_worker_and_no_flow(wheel):
    names = ZipFile(wheel).namelist()

    assert "gpu_jobs/worker/__main__.py" in names
    assert "gpu_jobs/workloads/video/workload.py" in names
    assert "gpu_jobs/platforms/runpod/pod_worker.py" in names
    unwanted = ("flows", "tasks", "tests", "gpu_jobs/emulators", "gpu_jobs/testing")
    assert [name for name in names if name.startswith(unwanted)] == []


def test_nothing_that_the_image_installs_needs_prefect(wheel):
    """By the metadata of what is installed here, from the extras on; a package that is not here has an end there."""
    with ZipFile(wheel) as archive:
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("METADATA"))).decode()
    wanted = _needed(Parser().parsestr(metadata).get_all("Requires-Dist"), EXTRAS)
    seen = set()
    while wanted:
        name, extras = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            wanted |= _needed(distribution(name).requires or [], extras)
        except PackageNotFoundError:
            continue

    assert {"polars", "torch", "transformers", "bitsandbytes", "google-cloud-storage", "httpx"} <= seen
    assert {name for name in seen if "prefect" in name} == set()


def _needed(requirements, extras):
    parsed = map(Requirement, requirements)
    return {
        (canonicalize_name(each.name), frozenset(each.extras))
        for each in parsed
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras or {""})
    }


def test_its_command_is_a_gpu_worker(tmp_path, monkeypatch, wheel):
    """Run as Cloud Run would, from what the image installs; nothing stands before a platform's own command."""
    entry = json.loads(re.search(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)[1])
    assert "\nENTRYPOINT []\n" in DOCKERFILE
    (tmp_path / "data.csv").write_text("id\na\nb\n")
    spec = CampaignSpec(store_root=str(tmp_path / "store"), dataset=str(tmp_path / "data.csv"), workload="noop")
    policy = a_policy(platforms=("local",), heartbeat_s=0.2)
    campaign = open_campaign(spec, policy)
    journal = Journal(campaign.store)
    journal.append(Opened(owner="test", policy=policy, at=an_order().expires_at), upon=journal.read())
    ZipFile(wheel).extractall(tmp_path / "installed")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    assert entry[0] == "python"

    worker = subprocess.run(
        [sys.executable, *entry[1:], campaign.store.uri], cwd=tmp_path, capture_output=True, timeout=120, check=False
    )

    assert worker.returncode == 0, worker.stdout
    assert campaign.status().items_done == 2


def test_it_does_not_run_as_root_and_installs_no_root_owned_files():
    instructions = re.findall(r"^(USER|RUN|COPY) (.*)$", DOCKERFILE, re.MULTILINE)
    after = instructions[instructions.index(("USER", "fanfold")) + 1 :]

    user = "fanfold"
    for kind, what in after:
        user = what if kind == "USER" else user
        assert kind != "COPY" or "--chown=fanfold" in what
        assert kind != "RUN" or user == "fanfold" or what.startswith("apt-get update")
    assert user == "fanfold"


def test_the_ignore_file_leaves_exactly_what_is_copied():
    assert {path.partition("/")[0] for path in sent()} == {path.partition("/")[0] for path in COPIED}


def test_cloud_build_builds_this_file():
    build = yaml.safe_load((IMAGE / "cloudbuild.yaml").read_text())

    assert build["steps"][0]["args"] == [
        "build",
        "--file",
        "gpu_jobs/platforms/image/Dockerfile",
        "--tag",
        "$_IMAGE",
        ".",
    ]
    assert build["images"] == ["$_IMAGE"]
