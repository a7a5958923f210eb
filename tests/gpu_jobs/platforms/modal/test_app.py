"""What is deployed to Modal and when, what it offers, and what it is asked for."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from gpu_jobs.errors import RefusedError, RejectedError
from gpu_jobs.jobs.offers import offers_of
from gpu_jobs.platforms.modal.adapter import ModalPlatform
from gpu_jobs.platforms.modal.app import _sources, content_hash, requirements
from gpu_jobs.platforms.modal.offers import offers_in
from gpu_jobs.platforms.modal.settings import ModalSettings
from tests.contracts.modal_bench import calls_of, running, settings_for


async def test_an_app_that_is_not_deployed_or_from_other_code_is_deployed_once(bench, cloud):
    """By the hash of its content; the second GPU job changes nothing."""
    changed = settings_for(cloud, app="changing")
    platform = ModalPlatform(changed)
    for settings in (changed, settings_for(cloud, app="changing", env={"A": "1"})):
        platform = ModalPlatform(settings)
        for expected in (True, False):
            cloud.calls.clear()
            await platform.start(bench.order())
            assert ("AppPublish" in cloud.calls) is expected


async def test_where_deploying_is_off_an_app_from_other_code_starts_nothing(bench, cloud):
    """Nor does one that is not there; both say what to do."""
    missing = ModalPlatform(settings_for(cloud, app="missing", deploys=False))
    with pytest.raises(RejectedError, match="'missing' is not deployed: run `fanfold deploy modal`"):
        await missing.start(bench.order())

    await ModalPlatform(settings_for(cloud, app="guarded")).start(bench.order())
    other = ModalPlatform(settings_for(cloud, app="guarded", env={"A": "1"}, deploys=False))
    with pytest.raises(RejectedError, match="'guarded' was deployed from other code"):
        await other.start(bench.order())


async def test_what_modal_s_command_line_deploys_is_the_same_app(bench, cloud):
    """`modal deploy`: the adapter finds its own hash and deploys nothing."""
    environ = {**os.environ, "FANFOLD_MODAL_APP": "by-hand", "FANFOLD_MODAL_ENV": json.dumps({"BY": "hand"})}
    command = [sys.executable, "-m", "modal", "deploy", "-m", "gpu_jobs.platforms.modal.app"]
    done = await asyncio.to_thread(subprocess.run, command, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    cloud.calls.clear()
    settings = settings_for(cloud, app="by-hand", env={"BY": "hand"}, deploys=False)

    bench.platform = ModalPlatform(settings)
    await running(bench)

    assert "AppPublish" not in cloud.calls


async def test_a_list_of_gpus_is_a_function_of_its_own(bench, cloud):
    """Modal chooses the first that it has; the call goes to the function that was deployed with the list."""
    bench.platform = ModalPlatform(settings_for(cloud, gpus=("H100:2, A100-80GB:2",), app="lists"))
    handle = await running(bench)

    line = cloud.container_of(*await calls_of(bench, handle)).line
    assert (line.function, line.gpu, line.num_gpus) == ("gpu_worker-h100-2-a100-80gb-2", "H100", 2)
    assert (line.max_cores, line.max_memory_gib) == (line.cores, line.memory_gib) == (4, 32)


async def test_gpu_and_count_of_the_offer_are_what_is_asked_for(bench, cloud):
    """And billed."""
    bench.platform = ModalPlatform(settings_for(cloud, gpus=("A100-80GB:4",)))
    handle = await running(bench)

    line = cloud.container_of(*await calls_of(bench, handle)).line
    assert (line.gpu, line.num_gpus, line.cores, line.memory_gib) == ("A100-80GB", 4, 8, 64)
    assert (line.max_cores, line.max_memory_gib) == (8, 64), "more use than that would be billed beside the budget"


def test_offers_have_a_price_for_the_whole_machine():
    """One for each entry, times its GPUs; a list at the price of its dearest and the speed of its slowest."""
    one, four, either = offers_in(ModalSettings(gpus=("L4", "A100-80GB:4", "H100,A100-80GB")))
    listed = {offer.gpu: offer for offer in offers_of("modal") if offer.num_gpus == 1}

    assert replace(one, max_workers=100, max_alive=100, max_hours=None) == listed["L4"]
    assert (four.gpu, four.num_gpus) == ("A100-80GB", 4)
    assert four.usd_per_hour == 4 * listed["A100-80GB"].usd_per_hour
    assert (either.usd_per_hour, either.speed) == (listed["H100"].usd_per_hour, listed["A100-80GB"].speed)
    assert {(offer.max_hours, offer.max_alive) for offer in (one, four, either)} == {(23.5, 10)}


def test_an_idle_window_is_part_of_the_offer():
    """So that the forecast and the choice of a platform count it."""
    (offer,) = offers_in(ModalSettings(scaledown_s=300))

    assert offer.idle_s == 300


@pytest.mark.parametrize("gpu", ["V100", "L4:9", "L4:0", "A10:5", "L4:x", "H100:2,A100", ""])
def test_a_gpu_that_modal_does_not_have_is_refused(gpu):
    """Naming the setting."""
    with pytest.raises(RefusedError, match="FANFOLD_MODAL_GPUS"):
        offers_in(ModalSettings(gpus=(gpu,)))


def test_the_content_hash_changes_with_code_and_settings(tmp_path, monkeypatch):
    """And with nothing else: neither the emulator nor the app's name is content."""
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("a = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings = ModalSettings(sources=("mine",))
    before = content_hash(settings)

    assert content_hash(ModalSettings(sources=("mine",), app="x", emulator="http://127.0.0.1:1")) == before
    assert content_hash(ModalSettings(sources=("mine",), scaledown_s=61)) != before
    (package / "__init__.py").write_text("a = 2\n")
    assert content_hash(settings) != before


def test_a_package_that_is_not_here_is_refused():
    """Naming the setting, before anything is deployed."""
    with pytest.raises(RefusedError, match="FANFOLD_MODAL_SOURCES: there is no package 'no_such_package' here"):
        content_hash(ModalSettings(sources=("no_such_package",)))


def test_the_image_has_what_a_gpu_worker_needs_and_no_prefect():
    """The library's dependencies and the extras `gpu`, `quantize` and `demo`."""
    names = {each.partition(">")[0].partition("=")[0].partition("[")[0] for each in requirements()}

    assert {"polars", "torch", "google-cloud-storage", "bitsandbytes", "gguf"} <= names
    assert not {"prefect", "pytest", "google-cloud-run"} & names


def test_containers_get_neither_emulators_nor_test_fakes():
    """By the patterns that Modal is given, which decide what the hash is of too; users' own packages travel whole."""
    names = {name for name, _ in _sources(["gpu_jobs"])}

    assert {"gpu_jobs/worker/__main__.py", "gpu_jobs/jobs/offers.toml"} <= names
    assert not [name for name in names if name.startswith(("gpu_jobs/emulators", "gpu_jobs/testing"))]
