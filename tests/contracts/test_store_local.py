"""What a store in a folder keeps when processes die, fork or meet an odd folder."""

import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_jobs.errors import StoreError
from gpu_jobs.store.local import LocalStore

WRITE_FOREVER = """
import sys, itertools
from pathlib import Path
from gpu_jobs.store.local import LocalStore
store = LocalStore(Path(sys.argv[1]))
for number in itertools.count():
    body = b"%d" % (number % 10) * 300_000
    store.put("put", body, {"n": str(number)})
    store.create(f"created/{sys.argv[2]}-{number}", body, {"n": str(number)})
    Path(sys.argv[3]).write_bytes(body)
    store.upload(f"uploaded/{sys.argv[2]}-{number}", Path(sys.argv[3]))
    if number == 1:
        print("writing", flush=True)
"""
FORK_AND_WRITE = """
import os, sys
from pathlib import Path
from gpu_jobs.store.local import LocalStore
store = LocalStore(Path(sys.argv[1]))
child = os.fork()
for number in range(500):
    assert store.create(f"{'parent' if child else 'child'}-{number}", b"%d" % child)
if child:
    sys.exit(os.waitpid(child, 0)[1] != 0)
"""


def test_killed_writer_leaves_no_half_object(tmp_path):
    """Kill a process that writes all the time: every object is one of its versions, whole, with its summary."""
    for victim in range(4):
        command = [sys.executable, "-c", WRITE_FOREVER, str(tmp_path / "store"), str(victim), str(tmp_path / "file")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"writing\n"
            time.sleep(0.05 + victim / 100)
            process.send_signal(signal.SIGKILL)

    store = LocalStore(tmp_path / "store")
    entries = list(store.list(""))
    assert len(entries) > 20
    for entry in entries:
        body = store.get(entry.key)
        assert entry.size_bytes == len(body) == 300_000, entry.key
        assert body == body[:1] * 300_000
        assert entry.key.startswith("uploaded/") or int(entry.summary["n"]) % 10 == int(body[:1])


def test_listing_skips_what_a_killed_writer_left(tmp_path):
    """Temporary files are no objects."""
    (tmp_path / ".tmp").mkdir()
    (tmp_path / ".tmp" / "left-over").write_bytes(b"half")
    store = LocalStore(tmp_path)
    store.create("a", b"x")

    assert [entry.key for entry in store.list("")] == ["a"]


def test_forked_processes_share_a_store(tmp_path):
    """A store that was opened before a fork takes no temporary name twice."""
    subprocess.run([sys.executable, "-c", FORK_AND_WRITE, str(tmp_path)], check=True)

    assert len(list(LocalStore(tmp_path).list(""))) == 1000


def test_folder_that_cannot_be_used_is_a_store_error(tmp_path):
    """What the file system refuses is reported with the key, as every store's errors are."""
    (tmp_path / "file").write_bytes(b"")
    store = LocalStore(tmp_path / "file")

    with pytest.raises(StoreError, match=r"file/a/b\.json"):
        store.create("a/b.json", b"")
    with pytest.raises(StoreError):
        store.put("a", b"")
    assert list(store.list("")) == []


@given(
    parts=st.lists(
        st.sampled_from([b'\n{"fanfold_summary":', b"{}", b"}", b"}}\n", b"\n", b'"', b" " * 2000, b"x" * 4096])
    ),
    summary=st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3),
)
def test_no_body_is_taken_for_a_summary(tmp_path_factory, parts, summary):
    """Bodies made of everything that a stored summary is made of come back as they were."""
    store, body = LocalStore(tmp_path_factory.getbasetemp() / "bodies"), b"".join(parts)
    store.put("a", body, summary)

    (entry,) = store.list("")
    assert (store.get("a"), entry.size_bytes, dict(entry.summary)) == (body, len(body), summary)
