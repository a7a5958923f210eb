"""From a dataset's name to its inputs, and from an input's address to its bytes."""

import gzip
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import polars as pl
import pytest

from gpu_jobs.dataset.sources import fingerprint, local_copy, read_sources
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.errors import ItemError, RefusedError, StoreError, StoreUnavailableError
from gpu_jobs.store import open_store

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


TABLE = pl.DataFrame({"id": ["007", "8"], "video": ["b.mp4", "gone.mp4"], "note": [1, None]})


@pytest.mark.parametrize(("suffix", "notes"), [("parquet", [1, None]), ("csv", ["1", None]), ("jsonl", [1, None])])
def test_table_keeps_its_order_columns_and_ids(folder, suffix, notes):
    """A relative path counts from the table; an id of digits stays as it is written, as all of a CSV does."""
    path = folder / f"table.{suffix}"
    {"parquet": TABLE.write_parquet, "csv": TABLE.write_csv, "jsonl": TABLE.write_ndjson}[suffix](path)

    found = list(read_sources(str(path), suffixes=MP4))

    assert [(source.id, source.uri) for source in found] == [("007", f"{folder}/b.mp4"), ("8", f"{folder}/gone.mp4")]
    assert [source.fingerprint for source in found] == [fingerprint(f"{folder}/b.mp4"), "missing"]
    assert [source.columns["note"] for source in found] == notes


def test_table_needs_an_id_or_a_file(folder):
    path = folder / "prompts.csv"
    path.write_text("prompt\nhello\n")
    with pytest.raises(RefusedError, match="neither a column 'id'"):
        list(read_sources(str(path)))

    assert [source.id for source in read_sources(str(path), id_column="prompt")] == ["hello"]


def test_row_without_an_id_is_refused_by_its_number(folder):
    TABLE.with_columns(id=pl.Series(["a", None])).write_parquet(folder / "t.parquet")

    with pytest.raises(RefusedError, match="row 1 of the table"):
        list(read_sources(f"{folder}/t.parquet"))


def test_damaged_table_is_refused(folder):
    (folder / "t.parquet").write_bytes(b"PAR1 not really")

    with pytest.raises(RefusedError, match="cannot be read"):
        list(read_sources(f"{folder}/t.parquet"))


@pytest.mark.parametrize(
    ("name", "body", "problem"),
    [
        ("t.jsonl", b'{"id": "a"}\n\n{"id": "b\n', "line 3 "),
        ("t.jsonl", b'{"id": "a"}\n[1]\n', "line 2 "),
        (
            "t.csv",
            b"id,text\na,b\nc,d,e\n",
            "line 3 has 3 values for 2 columns; a value with a comma in it needs quotes",
        ),
        ("t.csv", "id,text\na,caf\u00e9\n".encode("latin-1"), "line 2 is not UTF-8"),
        ("t.csv", b"", "empty CSV"),
    ],
)
def test_damage_of_a_table_is_told_by_its_line(tmp_path, name, body, problem):
    """In one line of words, since polars names no line and tells what its own users could do."""
    (tmp_path / name).write_bytes(body)

    with pytest.raises(RefusedError, match=f"cannot be read: {problem}") as refused:
        list(read_sources(str(tmp_path / name)))

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("t.csv", "id,text\r\n7,1.50\r\nb,x\r\n"),
        ("t.jsonl", '{"id": 7, "text": "1.50"}\r\n\r\n{"id": "b", "text": "x"}\r\n'),
    ],
)
def test_what_editors_of_windows_leave_is_no_matter(tmp_path, name, body):
    """A byte order mark and CRLF; and an id is the same as a number or as a text."""
    (tmp_path / name).write_bytes(body.encode("utf-8-sig"))

    found = [(source.id, source.columns["text"]) for source in read_sources(str(tmp_path / name))]

    assert found == [("7", "1.50"), ("b", "x")]


def test_a_column_may_change_its_type_far_down(tmp_path):
    """Whatever the first ten thousand rows held."""
    lines = [f'{{"id": {number}, "text": {number}}}\n' for number in range(11_000)]
    (tmp_path / "t.jsonl").write_text("".join(lines) + '{"id": "x", "text": "y", "more": 1}\n')

    *_, last = read_sources(str(tmp_path / "t.jsonl"))

    assert last.columns == {"id": "x", "text": "y", "more": 1}


def test_tables_may_be_named_by_a_glob(tmp_path):
    """One after the other by name; an id must be unique in all."""
    for name, ids in (("b", ["3"]), ("a", ["1", "2"])):
        pl.DataFrame({"id": ids}).write_parquet(tmp_path / f"{name}.parquet")

    assert [source.id for source in read_sources(f"{tmp_path}/*.parquet")] == ["1", "2", "3"]
    with pytest.raises(RefusedError, match=r"'.*\*\.csv' matches no file"):
        list(read_sources(f"{tmp_path}/*.csv"))


def test_a_table_without_rows_has_no_inputs(tmp_path):
    for name, body in (("t.jsonl", ""), ("t.csv", "id,text\n")):
        (tmp_path / name).write_text(body)
        with pytest.raises(RefusedError, match="has no inputs"):
            list(read_sources(str(tmp_path / name)))


def test_large_table_is_read_in_order_a_batch_at_a_time(tmp_path):
    """The first rows come before the last are read."""
    pl.DataFrame({"id": range(200_000)}).write_parquet(tmp_path / "t.parquet", row_group_size=5000)
    sources = read_sources(f"{tmp_path}/t.parquet")

    assert [int(next(sources).id) for _ in range(3)] == [0, 1, 2]
    assert [int(source.id) for source in sources] == list(range(3, 200_000))


def test_local_input_is_its_own_copy(folder, tmp_path):
    path = folder / "b.mp4"

    assert local_copy(str(path), tmp_path / "cache", expected=fingerprint(str(path))) == path
    with pytest.raises(ItemError, match="has changed since"):
        local_copy(str(path), tmp_path / "cache", expected="1-2")
    with pytest.raises(ItemError, match="does not exist"):
        local_copy(f"{folder}/gone.mp4", tmp_path / "cache")


class Web(BaseHTTPRequestHandler):
    """Serves `bodies`; a status or another path there is an answer too. Notes downloads."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.reply(with_body=False)

    def do_GET(self):
        self.server.downloads.append(self.path)
        self.server.encodings.add(self.headers["Accept-Encoding"])
        time.sleep(0.05)
        self.reply(with_body=True)

    def reply(self, *, with_body):
        body = self.server.bodies.get(self.path, 404)
        status, body = (body, b"") if isinstance(body, int) else (200, body)
        if isinstance(body, str):
            self.send_response(302)
            self.send_header("Location", body)
            body = b""
        else:
            self.send_response(status)
        self.send_header("Content-Length", str(len(body) + (self.path == "/broken")))
        self.send_header("ETag", f'"{hash(body)}"')
        self.send_header("Connection", "close")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def web():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.bodies, server.downloads, server.encodings = {}, [], set()
    server.uri = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_web_file_is_downloaded_once_for_all(web, tmp_path):
    """Eight threads want it at once; a changed file is another copy, and not the one that was split."""
    web.bodies["/a.mp4"] = b"first"
    uri = f"{web.uri}/a.mp4"
    (source,) = read_sources(uri)

    with ThreadPoolExecutor(8) as threads:
        paths = list(threads.map(lambda _: local_copy(uri, tmp_path, expected=source.fingerprint), range(8)))
    web.bodies["/a.mp4"] = b"second"

    assert {path.read_bytes() for path in paths} == {b"first"}
    assert web.downloads == ["/a.mp4"]
    assert paths[0].suffix == ".mp4"
    assert local_copy(uri, tmp_path, expected=source.fingerprint) == paths[0]
    assert local_copy(uri, tmp_path).read_bytes() == b"second"
    paths[0].unlink()
    with pytest.raises(ItemError, match="has changed since"):
        local_copy(uri, tmp_path, expected=source.fingerprint)


def test_web_errors_say_whether_to_try_again(web, tmp_path):
    web.bodies |= {"/secret": 403, "/busy": 503, "/broken": b"half"}

    assert fingerprint(f"{web.uri}/gone") == fingerprint("http://host:port/") == "missing"
    with pytest.raises(RefusedError, match="does not exist"):
        list(read_sources(f"{web.uri}/gone"))
    with pytest.raises(StoreError, match="answered 403"):
        fingerprint(f"{web.uri}/secret")
    with pytest.raises(StoreUnavailableError, match="answered 503"):
        fingerprint(f"{web.uri}/busy")
    with pytest.raises(StoreUnavailableError, match=r"/broken' broke off: .*4 bytes, expected 5"):
        local_copy(f"{web.uri}/broken", tmp_path)
    with pytest.raises(StoreUnavailableError, match="did not answer"):
        fingerprint("http://127.0.0.1:9/")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_web_file_may_move_and_is_kept_as_it_is_sent(web, tmp_path):
    """A redirect is followed, and a body that is compressed already is not unpacked."""
    web.bodies |= {"/old.gz": "/new.gz", "/new.gz": gzip.compress(b"text")}

    assert fingerprint(f"{web.uri}/old.gz") == fingerprint(f"{web.uri}/new.gz")
    assert local_copy(f"{web.uri}/old.gz", tmp_path).read_bytes() == web.bodies["/new.gz"]
    assert web.encodings == {"identity"}


def test_cache_keeps_the_last_used(web, tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_jobs.dataset.files._IN_USE_S", -1.0)
    for name in "abc":
        web.bodies[f"/{name}"] = name.encode() * 100
        local_copy(f"{web.uri}/{name}", tmp_path, keep_bytes=250)
        time.sleep(0.02)

    kept = [path.read_text()[0] for path in tmp_path.iterdir() if path.suffix != ".lock"]
    assert sorted(kept) == ["b", "c"]


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
