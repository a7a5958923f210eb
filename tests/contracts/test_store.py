"""What every store keeps, whatever it is made of."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gpu_jobs.errors import StoreError
from gpu_jobs.store.local import LocalStore
from gpu_jobs.testing import MemoryStore

STORES = {
    "local": lambda ask: LocalStore(ask("tmp_path") / "store"),
    "local-fsync": lambda ask: LocalStore(ask("tmp_path") / "store", fsync=True),
    "memory": lambda ask: MemoryStore(),
    "gcs": lambda ask: ask("gcs_store"),
}
LIKE_A_SUMMARY = b'{"ok":true}\n{"fanfold_summary":{"a":"b"}}\n'
BODIES = {
    "empty": b"",
    "binary": bytes(range(256)) * 9,
    "like a summary": LIKE_A_SUMMARY,
    "like a broken summary": b'\n{"fanfold_summary":}}\n',
    "like a far summary": b'\n{"fanfold_summary":' + b" " * 4070 + b"}}\n",
    "ends like a summary": b"}}\n",
}
KEYS = (
    "a!",
    "a-1/z.json",
    "a.json",
    "a/b.json",
    "a/b1/c.json",
    "a/b1/d/e.json",
    "a/b2",
    "a0",
    "b/000000000009-000000000010.json",
    "b/000000000010-000000000011.json",
    "c/\u00e9",
    "c/\uffee",
    "c/\U0001f600",  # before the last one in UTF-16
)


@pytest.fixture(params=list(STORES.values()), ids=list(STORES))
def store(request):
    return request.param(request.getfixturevalue)


@pytest.fixture
def full_store(store):
    for key in reversed(KEYS):
        store.create(key, b"x")
    return store


def keys(entries):
    return [entry.key for entry in entries]


def race(act, num_threads):
    """Call `act(index)` in so many threads that set off together."""
    start = threading.Barrier(num_threads)

    def run(index):
        start.wait()
        return act(index)

    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(run, range(num_threads)))


def test_first_writer_wins_and_its_bytes_stay(store):
    """A second create with other bytes loses and changes nothing."""
    assert store.create("a/b.json", b"one", {"by": "one"})

    assert not store.create("a/b.json", b"two", {"by": "two"})

    assert store.get("a/b.json") == b"one"
    assert [dict(entry.summary) for entry in store.list("")] == [{"by": "one"}]


def test_creating_the_same_bytes_again_is_true(store):
    """Whoever asks again after a lost reply learns that it has won."""
    assert [store.create("a", b"one", {"n": "1"}), store.create("a", b"one", {"n": "1"})] == [True, True]

    assert store.create("a", b"one")
    assert len(list(store.list(""))) == 1


def test_put_overwrites_and_returns_the_stamp_that_a_listing_shows(store):
    """The owner of a heartbeat learns the store's time of that very write."""
    first = store.put("workers/a.json", b"1", {"n": "1"})
    second = store.put("workers/a.json", b"22")

    (entry,) = store.list("workers/")
    assert (entry.stored_at, entry.size_bytes, dict(entry.summary)) == (second, 2, {})
    assert second >= first
    assert store.get("workers/a.json") == b"22"


def test_stamps_of_writes_in_turn_never_go_back(store, tmp_path):
    """Whatever wrote them, later objects have later stamps."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    for number in range(0, 30, 3):
        store.create(f"{number:02d}", b"x")
        store.put(f"{number + 1:02d}", b"x")
        store.upload(f"{number + 2:02d}", file)

    stamps = [entry.stored_at for entry in store.list("")]
    assert len(stamps) == 30
    assert stamps == sorted(stamps)


def test_absent_object_is_none(store):
    """Reading what is not there is no error, nor is reading what only others are below."""
    store.create("a/b", b"")

    assert [store.get("x"), store.get("x/y"), store.get("a"), store.get("a/b/c")] == [None] * 4


def test_delete_is_silent_if_absent(store):
    """Deleting twice, or below an object, does no more than deleting once."""
    store.create("a/b", b"x")
    store.create("a/c", b"x")
    for key in ("a/b", "a/b", "a/c/d", "nothing/here"):
        store.delete(key)

    assert keys(store.list("")) == ["a/c"]
    assert store.create("a/b", b"new")


def test_listing_is_in_byte_order_of_full_keys(full_store):
    """Folders do not come first, and no other alphabet than UTF-8 orders them."""
    assert keys(full_store.list("")) == sorted(KEYS, key=str.encode) == list(KEYS)


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "a/b1", "a/b1/", "a/b1/d/e.json", "b/00000000001", "c", "z/"])
def test_listing_starts_after_a_key_and_keeps_to_a_prefix(full_store, prefix):
    """A prefix is the start of a string, not a folder; `after` is exclusive and need not exist."""
    for after in ("", "a", "a.json", "a/", "a/b1/c.json", "a/b1/c.json0", "b/000000000010", "c/\u00e9", "zz"):
        expected = [key for key in KEYS if key.startswith(prefix) and key > after]
        assert keys(full_store.list(prefix, after)) == expected, after


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", ["a-1", "a", "b", "c"]),
        ("a", ["a-1", "a"]),
        ("a-", ["a-1"]),
        ("a/", ["a/b1"]),
        ("a/b", ["a/b1"]),
        ("a/b1/", ["a/b1/d"]),
        ("z", []),
        ("z/", []),
    ],
)
def test_folders_are_those_of_one_level(full_store, prefix, expected):
    """Each once, in the order of keys, without those below and without objects."""
    assert list(full_store.folders(prefix)) == expected


def test_deleting_during_a_listing_breaks_nothing(full_store):
    """Listings are lazy, so the world moves under them."""
    entries = full_store.list("")
    first = next(entries)
    full_store.delete(KEYS[-1])

    assert first.key == KEYS[0]
    assert keys(entries)[: len(KEYS) - 2] == list(KEYS[1:-1])


@pytest.mark.parametrize("summary", [{}, {"committed": "12", "text": 'a "b" {c}\n'}], ids=["plain", "with summary"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_body_and_summary_come_back_apart(store, tmp_path, body, summary):
    """Any bytes survive every way in and out, and the size leaves the summary out."""
    file = tmp_path / "in"
    file.write_bytes(body)
    store.create("created", body, summary)
    store.put("put", body, summary)
    store.upload("uploaded", file)

    for entry in store.list(""):
        store.download(entry.key, tmp_path / "folder" / "out")
        assert store.get(entry.key) == (tmp_path / "folder" / "out").read_bytes() == body
        assert (entry.size_bytes, dict(entry.summary)) == (len(body), summary if entry.key != "uploaded" else {})
        assert store.create(entry.key, body)
        assert store.upload(entry.key, file)
        assert not store.upload(entry.key, tmp_path / "folder" / "out") or body == store.get(entry.key)


def test_summary_has_a_limit(store):
    """One that is too long is refused before anything is written; one that just fits comes back."""
    with pytest.raises(StoreError, match="too long"):
        store.create("a", b"", {"k": "v" * 2041})
    store.create("b", LIKE_A_SUMMARY, {"k": "v" * 2040})

    assert [(entry.key, len(entry.summary["k"])) for entry in store.list("")] == [("b", 2040)]
    assert store.get("b") == LIKE_A_SUMMARY


def test_file_of_megabytes_comes_back_equal(store, tmp_path):
    """A file survives the way in and out, and a second one of the same size does not replace it."""
    one, two, out = tmp_path / "one", tmp_path / "two", tmp_path / "out"
    one.write_bytes(os.urandom(5_000_000))
    two.write_bytes(one.read_bytes()[:-1] + bytes([one.read_bytes()[-1] ^ 1]))

    assert [store.upload("a/f", one), store.upload("a/f", one), store.upload("a/f", two)] == [True, True, False]

    out.write_bytes(b"older")
    store.download("a/f", out)
    assert out.read_bytes() == one.read_bytes()
    assert [entry.size_bytes for entry in store.list("a/")] == [5_000_000]


def test_one_upload_of_many_wins(store, tmp_path):
    """Threads that upload different files to one key: one hears True, and its bytes are there."""
    files = [tmp_path / str(index) for index in range(8)]
    for index, file in enumerate(files):
        file.write_bytes(bytes([index]) * 300_000)

    won = race(lambda index: store.upload("f", files[index]), len(files))

    assert won.count(True) == 1
    assert store.get("f") == files[won.index(True)].read_bytes()


def test_downloading_what_is_absent_says_so(store, tmp_path):
    """The error names the object; nothing is left behind, not even half a file."""
    with pytest.raises(StoreError, match=r"no/such\.json does not exist"):
        store.download("no/such.json", tmp_path / "folder" / "file")

    assert not any(path.is_file() for path in (tmp_path / "folder").glob("*"))


def test_reader_never_sees_half_an_object(store):
    """While an owner overwrites its object, every reader gets one of the versions, whole."""
    store.put("a", b"0" * 300_000)
    over = threading.Event()

    def read(_):
        while not over.is_set():
            body = store.get("a")
            assert len(body) == 300_000
            assert body == body[:1] * 300_000

    with ThreadPoolExecutor(2) as pool:
        readers = pool.map(read, range(2))
        for number in range(60):
            store.put("a", b"%d" % (number % 10) * 300_000)
        over.set()
        assert list(readers) == [None, None]


def test_one_of_sixteen_creators_wins_each_time(store):
    """In many rounds of 16 threads with different bodies, exactly one hears True, and its bytes are there."""
    rounds, start = range(200 if store.uri.startswith("/") else 50), threading.Barrier(16)

    def create(index):
        won = []
        for number in rounds:
            start.wait()
            won.append(store.create(f"race/{number:03d}", b"%d" % index))
        return won

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(create, range(16)))

    for number in rounds:
        winners = [index for index in range(16) if won[index][number]]
        assert [store.get(f"race/{number:03d}")] == [b"%d" % index for index in winners]
