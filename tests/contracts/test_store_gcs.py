"""What a store in a bucket keeps when the network or the service fails."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gpu_jobs.emulators.gcs import Fault
from gpu_jobs.errors import RefusedError, StoreError, StoreUnavailableError
from gpu_jobs.store import open_store
from gpu_jobs.store.gcs import GcsStore

VERBS = {
    "create": lambda store, path: store.create("new", b"x"),
    "put": lambda store, path: store.put("new", b"x"),
    "get": lambda store, path: store.get("old"),
    "list": lambda store, path: list(store.list("")),
    "folders": lambda store, path: list(store.folders("")),
    "upload": lambda store, path: store.upload("new", path / "in"),
    "download": lambda store, path: store.download("old", path / "out"),
    "delete": lambda store, path: store.delete("old"),
}
every_verb = pytest.mark.parametrize("act", VERBS.values(), ids=VERBS.keys())


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").write_bytes(b"from a file")
    return tmp_path


def posts(gcs):
    return [request for request in gcs.requests if request.startswith("POST")]


@every_verb
@pytest.mark.parametrize("status", [503, 429, 500])
def test_transient_status_is_retried(gcs, gcs_store, folder, act, status):
    """One refusal of the service is not ours to report."""
    gcs_store.create("old", b"body")
    gcs.faults += [Fault(status=status)]

    act(gcs_store, folder)


@every_verb
def test_lost_reply_changes_no_outcome(gcs, gcs_store, folder, act):
    """What was done but not confirmed is asked again; the answer is that of the first time."""
    gcs_store.create("old", b"body")
    gcs.faults += [Fault(reply_is_lost=True)]

    assert act(gcs_store, folder) is not False


def test_creator_whose_reply_was_lost_owns_the_one_object(gcs, gcs_store):
    """The retry is refused as a loss; reading back shows that we have won."""
    gcs.faults += [Fault(method="POST", reply_is_lost=True)]

    assert gcs_store.create("a", b"ours", {"n": "1"})

    assert len(posts(gcs)) == 2
    assert [(entry.key, dict(entry.summary)) for entry in gcs_store.list("")] == [("a", {"n": "1"})]


def test_loser_whose_reply_was_lost_has_still_lost(gcs, gcs_store):
    """A retry does not turn another's object into ours."""
    gcs_store.create("a", b"theirs")
    gcs.faults += [Fault(method="POST", reply_is_lost=True)]

    assert not gcs_store.create("a", b"ours")
    assert gcs_store.get("a") == b"theirs"


@pytest.mark.parametrize("cut", [0, 1, 50_000, 199_999])
def test_cut_reply_is_never_taken_for_the_object(gcs, gcs_store, folder, cut):
    """A body that ends early is fetched again, by `get` and by `download`."""
    body = os.urandom(200_000)
    gcs_store.create("a", body)
    gcs.faults += [Fault(path="alt=media", cut_after_bytes=cut)] * 2

    assert gcs_store.get("a") == body

    gcs.faults += [Fault(path="alt=media", cut_after_bytes=cut)]
    gcs_store.download("a", folder / "out")
    assert (folder / "out").read_bytes() == body


def test_replies_that_are_always_cut_give_no_file(gcs, folder):
    """After the last try there is an error and no file, rather than half of one."""
    store = GcsStore("gs://contracts/cut", deadline_s=0.5)
    store.put("a", b"x" * 1000)
    gcs.faults += [Fault(path="alt=media", cut_after_bytes=10)] * 50

    with pytest.raises(StoreUnavailableError, match="gs://contracts/cut/a"):
        store.download("a", folder / "out")

    gcs.faults.clear()
    assert [path.name for path in folder.iterdir()] == ["in"]


def test_file_that_changes_while_it_is_fetched_is_refused(gcs, gcs_store, folder):
    """The bytes must have the checksum of the object that was found."""
    gcs_store.put("a", b"x" * 1000)
    gcs.faults += [Fault(path="alt=media", latency_s=0.5)]
    with ThreadPoolExecutor(1) as pool:
        download = pool.submit(gcs_store.download, "a", folder / "out")
        while gcs.faults:
            time.sleep(0.01)
        gcs_store.put("a", b"y" * 1000)

        with pytest.raises(StoreError, match="damaged"):
            download.result()
    assert not (folder / "out").exists()


def test_large_file_goes_in_and_out_in_blocks(gcs, gcs_store, folder, monkeypatch):
    """Above the client's limit for one request, with a fault at each step."""
    monkeypatch.setattr("gpu_jobs.store.gcs.BLOCK_BYTES", 4 << 20)
    file = folder / "large"
    file.write_bytes(os.urandom(9 << 20))
    gcs.faults += [Fault(method="POST", status=503), Fault(method="PUT", status=503)]
    assert [gcs_store.upload("a", file), gcs_store.upload("a", file)] == [True, True]
    assert not gcs_store.upload("a", folder / "in")

    gcs.faults += [Fault(path="alt=media", status=503), Fault(path="alt=media", cut_after_bytes=1 << 20)]
    gcs_store.download("a", folder / "out")

    assert (folder / "out").read_bytes() == file.read_bytes()
    assert len([request for request in gcs.requests if "alt=media" in request]) == 3 + 2


def test_listing_asks_for_a_page_at_a_time(gcs, gcs_store, monkeypatch):
    """The first entry costs one request wherever the listing begins; a fault between pages loses none."""
    monkeypatch.setattr("gpu_jobs.store.gcs.PAGE_SIZE", 2)
    for number in range(7):
        gcs_store.create(f"{number}", b"")
    gcs.requests.clear()

    entries = gcs_store.list("", after="2")
    assert next(entries).key == "3"
    assert len(gcs.requests) == 1

    gcs.faults += [Fault(status=503)]
    assert [entry.key for entry in entries] == ["4", "5", "6"]


def test_folders_of_many_pages_come_in_order(gcs, gcs_store, monkeypatch):
    """Whatever the size of a page, and though there are objects among the folders."""
    monkeypatch.setattr("gpu_jobs.store.gcs.PAGE_SIZE", 2)
    for number in range(5):
        for name in ("a", "b", "c"):
            gcs_store.create(f"{number}/{name}", b"")
        gcs_store.create(f"{number}.json", b"")

    assert list(gcs_store.folders()) == ["0", "1", "2", "3", "4"]


@every_verb
def test_missing_bucket_is_one_clear_error(gcs, folder, act):
    """Nothing is taken for absent, and nothing is retried, if it is the bucket that does not exist."""
    with pytest.raises(StoreError, match="bucket 'no-such-bucket' does not exist") as caught:
        act(GcsStore("gs://no-such-bucket/x"), folder)

    assert not isinstance(caught.value, StoreUnavailableError)


@every_verb
def test_missing_permission_names_the_role(gcs, gcs_store, folder, act):
    """Who may not use the bucket learns what to grant, and where."""
    gcs.faults += [Fault(status=403)]

    with pytest.raises(StoreError, match=r"storage\.objects\.\w+ is missing; grant roles/.* 'contracts'"):
        act(gcs_store, folder)


@every_verb
def test_dead_server_is_unavailable_in_bounded_time(monkeypatch, folder, act):
    """Retries end at the deadline and say so."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    store, start = GcsStore("gs://contracts/dead", deadline_s=0.3), time.monotonic()

    with pytest.raises(StoreUnavailableError, match=r"gs://contracts/dead/.*within 0\.3 s"):
        act(store, folder)

    assert time.monotonic() - start < 2


def test_silent_server_is_unavailable_in_bounded_time(gcs):
    """A connection that is accepted and never answered does not hold a caller."""
    store, start = GcsStore("gs://contracts/silent", deadline_s=0.3), time.monotonic()
    gcs.faults += [Fault(latency_s=30)] * 20

    with pytest.raises(StoreUnavailableError):
        store.get("a")

    gcs.faults.clear()
    assert time.monotonic() - start < 3


def test_sixty_threads_share_one_store(gcs, gcs_store, caplog):
    """No connection is thrown away for want of room in the pool."""
    with ThreadPoolExecutor(60) as pool:
        assert all(pool.map(lambda number: gcs_store.create(f"{number}", b"x"), range(300)))

    assert len(list(gcs_store.list(""))) == 300
    assert "pool" not in caplog.text


def test_uri_names_bucket_and_prefix(gcs):
    """A store is opened by its uri and says it back; one without a bucket is refused."""
    assert [open_store(uri).uri for uri in ("gs://b", "gs://b/", "gs://b/c/d/")] == ["gs://b", "gs://b", "gs://b/c/d"]
    with pytest.raises(RefusedError):
        open_store("gs:///prefix")
