"""From a dataset's name to its inputs, and from an input's address to its bytes."""

import os
from pathlib import Path

import pytest

from gpu_jobs.dataset.sources import fingerprint, local_copy, read_sources
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.errors import ItemError, RefusedError
from gpu_jobs.store import open_store
from gpu_jobs.store.gcs import GcsStore

MP4 = (".mp4",)


@pytest.fixture
def folder(tmp_path):
    """Three videos, one of them deep, a text, and files that nobody means."""
    for name in ("b.mp4", "a.MP4", "deep/er/c.mp4", "notes.txt", ".hidden.mp4", ".cache/d.mp4"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "in"


def names(found, base):
    return [source.id.removeprefix(f"{base}/") for source in found]


def test_folder_gives_its_files_sorted(folder):
    found = list(read_sources(str(folder), suffixes=MP4))

    assert names(found, folder) == ["a.MP4", "b.mp4", "deep/er/c.mp4"]
    assert found[0].uri == found[0].id == found[0].columns["uri"]
    assert found[0].fingerprint == fingerprint(found[0].uri)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.mp4", ["b.mp4"]),
        ("**/*.mp4", ["b.mp4", "deep/er/c.mp4"]),
        ("*", ["a.MP4", "b.mp4"]),
        ("notes.txt", ["notes.txt"]),
    ],
)
def test_glob_is_filtered_and_a_file_is_taken_as_it_is(folder, pattern, expected):
    assert names(read_sources(f"{folder}/{pattern}", suffixes=MP4), folder) == expected


def test_file_whose_name_looks_like_a_pattern_is_that_file(folder):
    (folder / "take[1].mp4").touch()

    assert names(read_sources(f"{folder}/take[1].mp4"), folder) == ["take[1].mp4"]


def test_list_may_mix_and_its_order_does_not_matter(folder):
    listed = [f"{folder}/deep", f"{folder}/gone.mp4", f"{folder}/b.mp4"]

    found = list(read_sources(listed, suffixes=MP4))

    assert names(found, folder) == ["b.mp4", "deep/er/c.mp4", "gone.mp4"]
    assert found[2].fingerprint == "missing"
    assert found == list(read_sources(listed[::-1], suffixes=MP4))


@pytest.mark.parametrize(
    ("dataset", "problem"),
    [
        ("{folder}/nothing", "does not exist"),
        ("{folder}/nothing.csv", "does not exist"),
        ("{folder}/*.mkv", "has no inputs ending in .mp4"),
        (["{folder}/b.mp4", "{folder}"], r"the id '.*/b.mp4' occurs twice"),
    ],
)
def test_dataset_that_cannot_be_meant_is_refused(folder, dataset, problem):
    filled = (
        dataset.format(folder=folder) if isinstance(dataset, str) else [one.format(folder=folder) for one in dataset]
    )

    with pytest.raises(RefusedError, match=problem) as refused:
        list(read_sources(filled, suffixes=MP4))

    assert refused.value.field == "dataset"


def test_local_input_is_its_own_copy(folder, tmp_path):
    path = folder / "b.mp4"

    assert local_copy(str(path), tmp_path / "cache", expected=fingerprint(str(path))) == path
    with pytest.raises(ItemError, match="has changed since"):
        local_copy(str(path), tmp_path / "cache", expected="1-2")
    with pytest.raises(ItemError, match="does not exist"):
        local_copy(f"{folder}/gone.mp4", tmp_path / "cache")


def test_name_that_is_not_utf8_is_one_bad_input(folder):
    """Neither the items table nor the report could hold such a name."""
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.mp4")).touch()

    found = {source.id.removeprefix(f"{folder}/"): source for source in read_sources(str(folder), suffixes=MP4)}

    assert list(found) == ["a.MP4", "b.mp4", r"caf\xe9.mp4", "deep/er/c.mp4"]
    bad = found[r"caf\xe9.mp4"]
    assert bad.fingerprint == "unreadable"
    assert "is not UTF-8; rename the file" in bad.problem
    assert [source.problem for source in found.values() if source is not bad] == ["", "", ""]


@pytest.mark.parametrize("dataset", ["{folder}", "{folder}/**"])
def test_link_to_a_folder_above_gives_no_file_twice(folder, dataset):
    """Directly, or by way of a folder elsewhere; a link to another folder is followed."""
    other = folder.parent / "other"
    other.mkdir()
    (other / "d.mp4").touch()
    (other / "back").symlink_to(folder / "deep")
    (folder / "deep" / "up").symlink_to("..")
    (folder / "deep" / "aside").symlink_to(other)

    found = read_sources(dataset.format(folder=folder), suffixes=MP4)

    assert names(found, folder) == ["a.MP4", "b.mp4", "deep/aside/d.mp4", "deep/er/c.mp4"]


@pytest.mark.parametrize("dataset", ["{folder}", "{folder}/*", ["{folder}/b.mp4", "{folder}/pipe.mp4"]])
def test_what_is_no_file_is_one_bad_input(folder, dataset):
    """It is never opened: a named pipe would wait for its other end for ever."""
    os.mkfifo(folder / "pipe.mp4")
    filled = (
        dataset.format(folder=folder) if isinstance(dataset, str) else [one.format(folder=folder) for one in dataset]
    )

    problems = {source.id: source.problem for source in read_sources(filled, suffixes=MP4) if source.problem}

    assert problems == {f"{folder}/pipe.mp4": f"'{folder}/pipe.mp4' is a named pipe, not a file"}
    with pytest.raises(RefusedError, match="is a named pipe"):
        list(read_sources(f"{folder}/pipe.mp4"))
    with pytest.raises(ItemError, match="is a named pipe"):
        local_copy(f"{folder}/pipe.mp4", folder)


@pytest.mark.parametrize("start", ["file://", "file://localhost"])
def test_file_address_is_decoded(folder, start):
    (folder / "a b.mp4").touch()

    assert names(read_sources(f"{start}{folder}/a%20b.mp4"), folder) == ["a b.mp4"]


def test_address_of_an_unknown_kind_is_one_bad_input(folder):
    first, second = read_sources([f"{folder}/b.mp4", "s3://bucket/x.mp4"])

    assert (first.problem, second.id) == ("", "s3://bucket/x.mp4")
    assert "name a file on this machine, gs://, https:// or http://" in second.problem
    with pytest.raises(RefusedError, match=r"'s3:.* cannot be read"):
        list(read_sources("s3://bucket/x.mp4"))


@pytest.fixture
def bucket(monkeypatch):
    with GcsEmulator() as emulator:
        emulator.make_bucket("videos")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
        store = open_store("gs://videos")
        for key in ("in/b.mp4", "in/deep/a.mp4", "in/notes.txt", "inner.mp4"):
            store.put(key, key.encode())
        yield "gs://videos"


def test_bucket_folder_object_and_table(bucket, tmp_path):
    """A prefix is a folder, not the beginning of a name; an object's fingerprint changes when it is overwritten."""
    found = list(read_sources(f"{bucket}/in", suffixes=MP4))
    assert names(found, bucket) == ["in/b.mp4", "in/deep/a.mp4"]
    assert found == list(read_sources(f"{bucket}/in/", suffixes=MP4))
    assert names(read_sources(f"{bucket}/inner.mp4"), bucket) == ["inner.mp4"]
    assert len(list(read_sources(bucket, suffixes=MP4))) == 3

    copy = local_copy(found[0].uri, tmp_path, expected=found[0].fingerprint)
    assert copy.read_bytes() == b"in/b.mp4"
    assert fingerprint(found[0].uri) == found[0].fingerprint
    open_store(bucket).put("in/b.mp4", b"other")
    assert fingerprint(found[0].uri) != found[0].fingerprint

    (tmp_path / "t.csv").write_text(f"uri\n{bucket}/in/b.mp4\n{bucket}/gone.mp4\n")
    rows = list(read_sources(f"{tmp_path}/t.csv"))
    assert [row.fingerprint for row in rows] == [fingerprint(found[0].uri), "missing"]
    with pytest.raises(RefusedError, match="has no inputs"):
        list(read_sources(f"{bucket}/nothing"))


def test_bucket_of_one_input_may_be_missing_or_no_name(bucket, folder):
    """Each is an error of its own input, with its address."""
    listed = [f"{folder}/b.mp4", "gs:///x.mp4", "gs://nobody/x.mp4", f"{bucket}/gone.mp4"]
    (folder / "t.csv").write_text("uri\n" + "\n".join(listed))

    for found in (read_sources(listed), read_sources(f"{folder}/t.csv")):
        problems = {source.uri: source.problem for source in found}
        assert problems.pop(f"{folder}/b.mp4") == ""
        assert problems.pop(f"{bucket}/gone.mp4") == f"'{bucket}/gone.mp4' does not exist"
        assert all(problem.startswith(f"'{uri}' cannot be read: ") for uri, problem in problems.items())
        assert len(problems) == 2


def test_object_that_goes_while_it_is_downloaded_is_one_bad_item(bucket, tmp_path, monkeypatch):
    """Overwritten or deleted: the reason is told."""
    store, uri = open_store(bucket), f"{bucket}/in/b.mp4"
    real, mark = GcsStore._fetch, fingerprint(uri)
    changes = [lambda: store.put("in/b.mp4", b"other"), lambda: store.delete("in/b.mp4")]

    def fetch(self, blob, path):
        changes.pop(0)()
        real(self, blob, path)

    monkeypatch.setattr(GcsStore, "_fetch", fetch)
    with pytest.raises(ItemError, match="has changed since"):
        local_copy(uri, tmp_path, expected=mark)
    with pytest.raises(ItemError, match=r"b.mp4' does not exist"):
        local_copy(uri, tmp_path, expected=fingerprint(uri))
