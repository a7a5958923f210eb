"""Files behind addresses of the web, as servers serve them."""

import errno
import gzip
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import polars as pl
import pytest

from gpu_jobs.dataset import web as web_files
from gpu_jobs.dataset.files import look_up
from gpu_jobs.dataset.sources import fingerprint, local_copy, read_sources
from gpu_jobs.errors import ItemError, RefusedError, StoreUnavailableError


class Web(BaseHTTPRequestHandler):
    """Serves `bodies`; a status or another path there is an answer too. Notes downloads.

    `heads` are other answers to HEAD, `before` statuses that come first, `after` what a body is after it was served;
    `cut` counts answers that are a byte short.
    """

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.server.looks.append(self.path)
        if self.server.together:
            self.server.together.wait()
        self.reply(with_body=False)

    def do_GET(self):
        self.server.downloads.append(self.path)
        self.server.encodings.add(self.headers["Accept-Encoding"])
        self.reply(with_body=True)

    def reply(self, *, with_body):
        body = self.server.bodies.get(self.path, 404)
        body = body if with_body else self.server.heads.get(self.path, body)
        if waiting := self.server.before.get(self.path):
            body = waiting.pop()
        status, body = (body, b"") if isinstance(body, int) else (200, body)
        if isinstance(body, str):
            self.send_response(302)
            self.send_header("Location", body)
            body = b""
        else:
            self.send_response(status)
        is_cut = with_body and self.server.cut.get(self.path, 0) > 0
        self.server.cut[self.path] = self.server.cut.get(self.path, 0) - is_cut
        self.send_header("Content-Length", str(len(body) + is_cut))
        self.send_header("ETag", f'"{hash(body)}"')
        self.send_header("Retry-After", "7")
        self.send_header("Connection", "close")
        self.end_headers()
        if with_body:
            self.wfile.write(body)
            self.server.bodies[self.path] = self.server.after.pop(self.path, self.server.bodies.get(self.path, 404))

    def log_message(self, *args):
        pass


@pytest.fixture
def web():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.bodies, server.downloads, server.encodings = {}, [], set()
    server.together, server.looks = None, []
    server.heads, server.before, server.after, server.cut = {}, {}, {}, {}
    server.uri = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def waits(monkeypatch):
    """How long it would have waited between tries, in seconds."""
    found = []
    monkeypatch.setattr(web_files.RETRY, "sleep", found.append)
    return found


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


def test_missing_web_file_is_told_from_one_that_is_denied(web, tmp_path):
    web.bodies["/secret"] = 403

    gone, wrong, secret = look_up([f"{web.uri}/gone", "http://host:port/", f"{web.uri}/secret"])

    assert (gone.fingerprint, gone.problem) == ("missing", f"'{web.uri}/gone' does not exist")
    assert (wrong.fingerprint, wrong.problem[:34]) == ("missing", "'http://host:port/' is not a valid")
    assert (secret.fingerprint, secret.problem) == ("unreadable", f"'{web.uri}/secret' answered 403 Forbidden to GET")
    for name in ("gone", "secret"):
        with pytest.raises(RefusedError, match=f"/{name}'"):
            list(read_sources(f"{web.uri}/{name}"))
        with pytest.raises(ItemError, match=f"/{name}'"):
            local_copy(f"{web.uri}/{name}", tmp_path)


@pytest.mark.parametrize("status", [403, 405, 501])
def test_server_that_refuses_head_is_asked_with_get(web, tmp_path, status):
    """Signed addresses are often good for GET alone."""
    web.bodies["/a"], web.heads["/a"] = b"body", status
    (source,) = read_sources(f"{web.uri}/a")

    assert source.problem == ""
    assert local_copy(source.uri, tmp_path, expected=source.fingerprint).read_bytes() == b"body"


@pytest.mark.parametrize("status", [429, 503])
def test_busy_server_is_asked_again(web, tmp_path, waits, status):
    """As late as it wishes, within reason; one that stays busy is the input's error."""
    web.bodies["/a"] = b"body"
    web.before["/a"] = [status, status, status]

    assert local_copy(f"{web.uri}/a", tmp_path).read_bytes() == b"body"
    assert [wait_s >= 7 for wait_s in waits] == [True, True, True]

    web.before["/a"] = [status] * 100
    assert look_up([f"{web.uri}/a"])[0].problem.startswith(f"'{web.uri}/a' answered {status} ")


def test_broken_transfer_is_tried_again(web, tmp_path, waits):
    """One that always breaks is the input's error, since the server does answer."""
    web.bodies |= {"/broken": b"half"}
    web.cut["/broken"] = 2

    assert local_copy(f"{web.uri}/broken", tmp_path).read_bytes() == b"half"
    assert len(waits) == 2

    web.bodies["/broken"], web.cut["/broken"] = b"more", 100
    with pytest.raises(ItemError, match=r"/broken' broke off: .*4 bytes, expected 5"):
        local_copy(f"{web.uri}/broken", tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".lock"] == [b"half"]


def test_server_that_does_not_answer_is_one_bad_input_of_a_plan(tmp_path, waits):
    """But not for a GPU worker, whose own network may be the reason."""
    (tmp_path / "t.csv").write_text("uri\nhttp://127.0.0.1:9/a.mp4\n")

    (source,) = read_sources(f"{tmp_path}/t.csv")

    assert "http://127.0.0.1:9/a.mp4' did not answer: " in source.problem
    assert len(waits) == 3
    with pytest.raises(StoreUnavailableError, match="did not answer"):
        local_copy(source.uri, tmp_path, expected=source.fingerprint)


def test_web_files_of_a_list_are_looked_up_side_by_side(web):
    """Each answer waits for the other request: one after the other they would all end as errors."""
    web.together = threading.Barrier(4, timeout=10)
    uris = [f"{web.uri}/{name}" for name in "abcd"]
    web.bodies |= {f"/{name}": b"body" for name in "abcd"}

    assert [source.problem for source in read_sources(uris)] == [""] * 4


def test_silent_server_is_not_asked_for_every_file(web, waits):
    """With a limit of time for each, ten thousand would take a night; other servers are asked all the same."""
    web.bodies["/a"] = b"body"

    *silent, good = look_up([*(f"http://127.0.0.1:9/{number}" for number in range(200)), f"{web.uri}/a"])

    assert good.problem == ""
    assert {look.fingerprint for look in silent} == {"unreadable"}
    assert "'127.0.0.1:9' did not answer for 3 other files" in silent[-1].problem
    assert len(waits) < 200


def test_table_of_the_web_that_holds_files_is_loaded_once(web, tmp_path, monkeypatch):
    """It is asked about once, not once a row."""
    monkeypatch.setenv("FANFOLD_MODEL_CACHE", str(tmp_path))
    body = io.BytesIO()
    pl.DataFrame(
        {"id": range(20), "video": [{"path": None, "bytes": bytes([one])} for one in range(20)]}
    ).write_parquet(body)
    web.bodies["/t.parquet"] = body.getvalue()

    found = list(read_sources(f"{web.uri}/t.parquet"))
    num_looks = len(web.looks)
    copies = [local_copy(one.uri, tmp_path / "inputs", expected=one.fingerprint) for one in found]

    assert [copy.read_bytes()[0] for copy in copies] == list(range(20))
    assert web.downloads == ["/t.parquet"]
    assert num_looks < 5


@pytest.mark.parametrize("name", ["a b.mp4", "ü.mp4", "a%20b.mp4"])
def test_spaces_and_umlauts_of_an_address_are_encoded_once(web, tmp_path, name):
    web.bodies |= {"/a%20b.mp4": b"body", "/%C3%BC.mp4": b"body"}
    (tmp_path / "t.csv").write_text(f"uri\n{web.uri}/{name}\n")

    (source,) = read_sources(f"{tmp_path}/t.csv")

    assert local_copy(source.uri, tmp_path, expected=source.fingerprint).read_bytes() == b"body"


def test_web_file_without_end_is_one_bad_item(web, tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_jobs.dataset.files._MAX_BYTES", 3)
    web.bodies |= {"/a": b"four"}

    with pytest.raises(ItemError, match="is larger than"):
        local_copy(f"{web.uri}/a", tmp_path)


def test_full_disk_blames_no_item(web, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gpu_jobs.dataset.web.download", full)
    web.bodies |= {"/a": b"four"}

    with pytest.raises(StoreUnavailableError, match="No space left"):
        local_copy(f"{web.uri}/a", tmp_path)


def test_web_file_that_changes_while_it_is_copied_is_one_bad_item(web, tmp_path):
    """Overwritten or deleted."""
    for after, problem in ((b"new", "has changed since"), (404, "does not exist")):
        web.bodies["/a"] = b"body"
        mark = fingerprint(f"{web.uri}/a")
        web.after["/a"] = after
        with pytest.raises(ItemError, match=problem):
            local_copy(f"{web.uri}/a", tmp_path / str(after), expected=mark)


def test_web_file_may_move_and_is_kept_as_it_is_sent(web, tmp_path):
    """A redirect is followed, and a body that is compressed already is not unpacked."""
    web.bodies |= {"/old.gz": "/new.gz", "/new.gz": gzip.compress(b"text")}

    assert fingerprint(f"{web.uri}/old.gz") == fingerprint(f"{web.uri}/new.gz")
    assert local_copy(f"{web.uri}/old.gz", tmp_path).read_bytes() == web.bodies["/new.gz"]
    assert web.encodings == {"identity"}


def test_cache_keeps_the_last_used(web, tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_jobs.dataset.files._IN_USE_S", -1.0)
    for at, name in enumerate("abc"):
        web.bodies[f"/{name}"] = name.encode() * 100
        local_copy(f"{web.uri}/{name}", tmp_path, keep_bytes=250)
        os.utime(next(path for path in tmp_path.iterdir() if path.read_bytes() == web.bodies[f"/{name}"]), (at, at))

    kept = [path.read_text()[0] for path in tmp_path.iterdir() if path.suffix != ".lock"]
    assert sorted(kept) == ["b", "c"]
