"""Emulated clouds, with four GPUs to a GPU worker where they have so many, set up by settings, as their users do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpu_jobs.emulators.cloud_run import CloudRunEmulator
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.emulators.modal import ModalEmulator
from gpu_jobs.emulators.runpod import RunPodEmulator
from gpu_jobs.platforms.cloud_run.adapter import CloudRunPlatform
from gpu_jobs.platforms.modal.adapter import ModalPlatform
from gpu_jobs.platforms.modal.settings import ModalSettings
from gpu_jobs.platforms.runpod.adapter import RunPodPlatform
from gpu_jobs.store import open_store
from tests.contracts.cloud_run_bench import cloud_run_settings, image
from tests.contracts.runpod_bench import fanfold_image, runpod_settings

ROOT = "gs://trainings"
GPUS = 4


@contextmanager
def bucket() -> Iterator[GcsEmulator]:
    """A bucket that this process reaches, and containers too, if they are told its `url`."""
    with GcsEmulator() as gcs, pytest.MonkeyPatch.context() as patch:
        gcs.make_bucket("trainings")
        patch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        yield gcs


def upload(folder: Path, root: str) -> str:
    """Put a model's files into a bucket; its name there."""
    store = open_store(root)
    for path in folder.iterdir():
        store.upload(path.name, path)
    return root


@contextmanager
def modal_with(folder: Path, _: GcsEmulator, **environ: str) -> Iterator[tuple[ModalEmulator, ModalPlatform]]:
    """`environ`: of the image. Containers get the bucket's address from this process."""
    with ModalEmulator(folder / "modal") as emulator, pytest.MonkeyPatch.context() as patch:
        for name, value in emulator.environ.items():
            patch.setenv(name, value)
        settings = ModalSettings(
            emulator=emulator.url,
            gpus=("A100-80GB:4",),
            env=environ,
            max_containers=1,
            scaledown_s=2,
        )
        yield emulator, ModalPlatform(settings, deadline_s=30.0)
        emulator.cancel_all()
        emulator.wait(lambda: not emulator.unfinished())


@contextmanager
def runpod_with(folder: Path, bucket: GcsEmulator, **environ: str) -> Iterator[tuple[RunPodEmulator, RunPodPlatform]]:
    """`environ`: of the pods, by the setting for it."""
    image = fanfold_image(STORAGE_EMULATOR_HOST=bucket.url)
    with RunPodEmulator(image, log_dir=folder, quota_per_minute=None) as emulator:
        settings = runpod_settings(emulator, gpu="NVIDIA A100 80GB PCIe", gpus_per_worker=GPUS, env=environ)
        yield emulator, RunPodPlatform(settings, deadline_s=10.0, poll_s=0.2)


@contextmanager
def cloud_run_with(
    folder: Path, bucket: GcsEmulator, **environ: str
) -> Iterator[tuple[CloudRunEmulator, CloudRunPlatform]]:
    """One GPU to a task. `environ`: of the image."""
    with CloudRunEmulator(image(STORAGE_EMULATOR_HOST=bucket.url, **environ), log_dir=folder) as emulator:
        yield emulator, CloudRunPlatform(cloud_run_settings(emulator.grpc_address), deadline_s=30.0)
