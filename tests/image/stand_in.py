"""Build the GPU workers' image on this machine: `make image`.

Root and Debian's buildah and mmdebstrap do it, without an engine and without a registry. Three things differ from the
real image: the base is Debian instead of NVIDIA's Ubuntu, uv comes from PyPI, and torch is whatever build pip's own
configuration leads to. All else is the Dockerfile's.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

from tests.project import ROOT

FOLDER = ROOT / ".image"
"""Where the base, the images and nothing else is kept; `make clean` deletes it."""
TAG, BASE_TAG = "localhost/fanfold", "localhost/fanfold-stand-in-base"
_IMAGE = ROOT / "gpu_jobs" / "platforms" / "image"
_DEBIAN = "bookworm"
"""Its Python is the 3.11 that the Dockerfile asks for."""
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


class UnableError(Exception):
    """This machine cannot build an image; the message says what to do."""


class Built(NamedTuple):
    """An image with its file system, which is only read."""

    rootfs: Path
    environ: dict[str, str]
    user: str
    folder: str
    """The working folder in it."""
    command: list[str]


def check_machine() -> None:
    """Raise `UnableError` if an image cannot be built here."""
    if os.geteuid() != 0:
        raise UnableError("an image can be built by root only; or run `docker build` as the Dockerfile says")
    if missing := [name for name in ("buildah", "mmdebstrap") if shutil.which(name) is None]:
        raise UnableError(f"{' and '.join(missing)} not found: run `make buildah` on Debian or Ubuntu")


def build_image(target: str = "worker", args: Mapping[str, str] | None = None) -> str:
    """Build one target of the Dockerfile and return its tag. Layers that have not changed are used again."""
    check_machine()
    FOLDER.mkdir(exist_ok=True)
    _build_base()
    mounts = _index_mounts()
    _buildah(
        "bud", "--isolation", "chroot", "--layers", "--target", target, "--tag", f"{TAG}:{target}",
        "--file", _IMAGE / "Dockerfile", "--ignorefile", _IMAGE / "Dockerfile.dockerignore",
        *(f"--volume={host}:{inside}:ro" for host, inside in mounts),
        *(f"--build-arg={name}={value}" for name, value in {**_STAND_IN, **(args or {})}.items()),
        ROOT,
    )  # fmt: skip
    return f"{TAG}:{target}"


_STAND_IN = {"BASE": BASE_TAG, "UV": BASE_TAG, "TORCH_BACKEND": ""}


def open_image(tag: str) -> Built:
    """Make the image's file system accessible; `close_images` ends that."""
    config = _inspect(tag)["OCIv1"]["config"]
    container = _buildah("from", "--pull-never", tag).strip()
    return Built(
        rootfs=Path(_buildah("mount", container).strip()),
        environ=dict(each.split("=", 1) for each in config["Env"]),
        user=config["User"],
        folder=config["WorkingDir"],
        command=config["Cmd"],
    )


def close_images() -> None:
    """Forget all containers that `open_image` has made."""
    _buildah("rm", "--all")


def sizes(tag: str) -> tuple[int, list[tuple[str, int]]]:
    """Bytes of the files of an image, and of each of its layers with the instruction that made it."""
    listed = json.loads(_buildah("images", "--json", tag))[0]
    layers = _buildah("inspect", "--format", "{{json .Docker.history}}", "--type", "image", tag)
    made = [each["created_by"] for each in json.loads(layers) if not each.get("empty_layer")]
    return int(listed.get("size", 0)) if isinstance(listed.get("size"), int) else 0, [(step, 0) for step in made]


def _build_base() -> None:
    """Debian with Python and certificates, and uv: once."""
    if BASE_TAG in _buildah("images", "--format", "{{.Name}}", "--all"):
        return
    context = FOLDER / "base"
    context.mkdir(exist_ok=True)
    include = "--include=python3,python3-venv,ca-certificates"
    _run("mmdebstrap", "--quiet", "--variant=minbase", include, _DEBIAN, context / "base.tar")
    _fetch_uv(context)
    (context / "Dockerfile").write_text("FROM scratch\nADD base.tar /\nCOPY uv /uv\n")
    _buildah("bud", "--isolation", "chroot", "--tag", BASE_TAG, context)
    shutil.rmtree(context)


def _fetch_uv(folder: Path) -> None:
    """The program uv of the version that the Dockerfile names."""
    (line,) = (each for each in (_IMAGE / "Dockerfile").read_text().splitlines() if each.startswith("ARG UV="))
    version = line.rpartition(":")[2]
    _run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, f"uv=={version}")
    (wheel,) = folder.glob("uv-*.whl")
    (folder / "uv").write_bytes(ZipFile(wheel).read(f"uv-{version}.data/scripts/uv"))
    (folder / "uv").chmod(0o755)


def _index_mounts() -> list[tuple[str, str]]:
    """Files that the build must see so that uv finds packages where pip does here: uv reads no configuration of pip."""
    listed = _run(sys.executable, "-m", "pip", "config", "list")
    found: dict[str, list[str]] = {}
    for line in listed.splitlines():  # such as global.find-links='/srv/wheels'
        name, _, value = line.partition("=")
        found.setdefault(name.rpartition(".")[2], []).extend(value.strip("'\"").replace("\\n", " ").split())
    indexes = [f"[[index]]\nurl = {json.dumps(url)}\n" for url in dict.fromkeys(found.get("extra-index-url", []))]
    for url in found.get("index-url", [])[-1:]:
        indexes.append(f"[[index]]\nurl = {json.dumps(url)}\ndefault = true\n")
    links = list(dict.fromkeys(found.get("find-links", [])))
    config = FOLDER / "uv.toml"
    config.write_text(
        f'system-certs = true\nindex-strategy = "unsafe-best-match"\nfind-links = {json.dumps(links)}\n{"".join(indexes)}'
    )
    local = [*links, *(str(Path(url[7:]).parent) for url in found.get("extra-index-url", []) if url.startswith("file:"))]
    certificates = next(iter(found.get("cert", [])), _CERTIFICATES)
    folders = [(path, path) for path in dict.fromkeys(local) if Path(path).is_absolute() and Path(path).exists()]
    return [(str(config), "/etc/uv/uv.toml"), (certificates, _CERTIFICATES), *folders]


def _inspect(tag: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_buildah("inspect", "--type", "image", tag))
    return found


def _buildah(*arguments: object) -> str:
    """Run buildah with a storage of our own, so that deleting `FOLDER` leaves nothing behind."""
    storage = ["--root", FOLDER / "storage", "--runroot", FOLDER / "run", "--storage-driver", "vfs"]
    return _run("buildah", *storage, *arguments)


def _run(*command: object) -> str:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnableError(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.image.stand_in", description="Build the image here.")
    parser.add_argument("--target", default="worker", choices=["worker", "vllm"])
    asked = parser.parse_args(arguments)
    began_at = time.monotonic()
    try:
        tag = build_image(asked.target)
    except UnableError as error:
        sys.exit(str(error))
    print(json.dumps({"image": tag, "built_in_s": round(time.monotonic() - began_at, 1)}))


if __name__ == "__main__":
    main()
