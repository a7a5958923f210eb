"""Where a model's weights come from."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.errors import WorkloadImportError
from gpu_jobs.store import open_store
from gpu_jobs.workloads import weights
from gpu_jobs.workloads.weights import check_weights, find_weights


@pytest.fixture
def bucket(monkeypatch):
    """A bucket with a model of two files, one in a folder."""
    with GcsEmulator() as gcs:
        gcs.make_bucket("models")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        store = open_store("gs://models")
        store.put("tiny/config.json", b"{}")
        store.put("tiny/1_Pooling/config.json", b"{1}")
        store.put("tiny-other/config.json", b"{2}")
        yield store


def test_a_folder_is_used_where_it_is(tmp_path):
    (tmp_path / "config.json").write_text("{}")

    assert find_weights(str(tmp_path)).folder == tmp_path


def test_models_in_the_image_or_on_a_volume_are_found_by_id(tmp_path, monkeypatch):
    (tmp_path / "volume" / "org" / "model").mkdir(parents=True)
    monkeypatch.setenv("FANFOLD_MODEL_DIRS", f"{tmp_path}/nothing:{tmp_path}/volume")

    assert find_weights("org/model").folder == tmp_path / "volume" / "org" / "model"


def test_a_model_in_a_bucket_is_copied_once(bucket):
    """Eight ask at once; its files are those below its own prefix, and a second look asks for nothing."""
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(find_weights, ["gs://models/tiny"] * 8))

    (one,) = found
    files = {path.relative_to(one.folder).as_posix(): path.read_bytes() for path in one.folder.rglob("*.json")}
    assert files == {"config.json": b"{}", "1_Pooling/config.json": b"{1}"}
    bucket.delete("tiny/config.json")
    assert find_weights("gs://models/tiny") == one


def test_a_wrong_checksum_is_refused_and_leaves_nothing(bucket, tmp_path):
    """What was uploaded only half is never used, and is looked at again once it was repaired."""
    digest = hashlib.sha256(b"{whole}").hexdigest()
    bucket.put("tiny/SHA256SUMS", f"{digest}  config.json\n".encode())

    with pytest.raises(WorkloadImportError, match=r"config\.json is not what its SHA256SUMS says"):
        find_weights("gs://models/tiny")

    bucket.put("tiny/config.json", b"{whole}")
    assert (find_weights("gs://models/tiny").folder / "config.json").read_bytes() == b"{whole}"


@pytest.mark.parametrize("model", ["gs://models/nothing", "org/no-such-model"])
def test_a_model_that_is_not_there_is_named(bucket, model):
    with pytest.raises(WorkloadImportError, match=f"model '{model}'"):
        find_weights(model)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: None)

    with pytest.raises(WorkloadImportError, match="'all-minilm-l6-v2' comes with a package that is not installed"):
        find_weights("all-minilm-l6-v2")


def test_another_model_has_another_digest(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = find_weights(str(tmp_path)).digest
    (tmp_path / "config.json").write_text("{1}")

    assert find_weights(str(tmp_path)).digest != before


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("./no-such-folder", "is no folder of this machine"),
        ("a b c!", "is no folder here"),
        ("org/no-such-model", ".* FANFOLD_MODEL_DIRS"),
    ],
)
def test_what_this_machine_cannot_get_is_known_before_anything_starts(tmp_path, monkeypatch, model, why):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WorkloadImportError, match=f"model '{model}' {why}"):
        check_weights(model)

    for known in ("smollm2-135m-instruct", "gs://bucket/model", str(tmp_path)):
        check_weights(known)
