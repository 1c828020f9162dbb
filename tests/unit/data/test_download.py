"""The downloader against a server on this machine that stalls, drops and lies."""

import hashlib
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from answers import CONTENT, GIVEN_UP, OTHER, RECOVERED, drops_after, fails, good
from eqcollapse.data.download import Patience, fetch
from eqcollapse.data.registry import RemoteFile
from eqcollapse.runtime.errors import EqcollapseError

QUICK = Patience(connect=2, read=0.2, head=0.4, window=0.15, min_rate=100_000, retries=2, gain=100_000, backoff=0.01)


@pytest.fixture
def server():
    """A server that gives its `answers` one a request, the last one for good.

    `requests` lists paths and Range headers.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            server.requests.append((self.path, asked))
            answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
            answer(self, int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.requests, server.answers = [], [good]
    server.url = f"http://127.0.0.1:{server.server_port}/file.bin"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetched(server, tmp_path):
    """Fetch from a server that gives these answers, and check that only the right bytes get the name."""
    kept = tmp_path / "cache" / "mine" / "file.bin"

    def fetched(*answers, patience=QUICK, **changes):
        server.answers[:] = answers
        file = RemoteFile("file.bin", (server.url,), 400_000, sha256=hashlib.sha256(CONTENT).hexdigest())
        file = RemoteFile(**{**vars(file), **changes})
        path = fetch(file, dataset="mine", mirror=None, cache=tmp_path / "cache", patience=patience)
        assert path == kept
        assert path.read_bytes() == CONTENT
        assert not kept.with_name("file.bin.partial").exists()
        return path

    yield fetched
    assert not kept.exists() or kept.read_bytes() == CONTENT


@pytest.mark.parametrize("what", RECOVERED)
def test_it_gets_the_file_in_spite_of(fetched, what):
    started = time.monotonic()
    fetched(*RECOVERED[what])
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("what", GIVEN_UP)
def test_it_gives_up_in_bounded_time_with_one_line(fetched, server, what):
    answers, reason = GIVEN_UP[what]
    started = time.monotonic()
    with pytest.raises(EqcollapseError, match=reason) as caught:
        fetched(*answers)
    assert time.monotonic() - started < 5
    assert str(caught.value).isprintable()
    assert f"file.bin of mine: not to be had; tried {server.url}" in str(caught.value)
    assert "`mirror` in params.yaml" in str(caught.value)


def test_what_was_got_is_kept_for_the_next_run(fetched, server, tmp_path):
    with pytest.raises(EqcollapseError, match="HTTP 404"):
        fetched(drops_after(100_000), fails(404))
    assert (tmp_path / "cache/mine/file.bin.partial").stat().st_size == 100_000
    server.requests.clear()
    fetched(good)
    assert server.requests == [("/file.bin", "bytes=100000-")]


def test_a_leftover_of_another_file_is_replaced(fetched, server, tmp_path):
    (tmp_path / "cache/mine").mkdir(parents=True)
    for leftover in (b"something else", CONTENT + b"more", OTHER, CONTENT):
        (tmp_path / "cache/mine/file.bin.partial").write_bytes(leftover)
        fetched(good).unlink()


def test_a_verified_copy_is_not_fetched_again_and_a_damaged_one_is(fetched, server):
    path = fetched(good)
    server.requests.clear()
    fetched(good)
    assert server.requests == []
    path.write_bytes(OTHER)
    fetched(good)


def test_the_next_address_is_tried(fetched, server):
    other = server.url.replace("file.bin", "first.bin")
    fetched(fails(404), good, urls=(other, server.url))
    assert [path for path, _ in server.requests] == ["/first.bin", "/file.bin"]


def test_a_mirror_at_an_address_comes_first(server, tmp_path):
    server.answers[:] = [fails(404), good]
    file = RemoteFile("file.bin", ("http://127.0.0.1:9/x",), 400_000, md5=hashlib.md5(CONTENT).hexdigest())
    mirror = server.url.removesuffix("file.bin")
    path = fetch(file, dataset="mine", mirror=mirror, cache=tmp_path, patience=QUICK)
    assert path.read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/mine/file.bin", "/file.bin"]


def test_a_wrong_file_in_a_mirror_is_not_taken(server, tmp_path):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "file.bin").write_bytes(OTHER)
    file = RemoteFile("file.bin", (server.url,), 400_000, md5=hashlib.md5(CONTENT).hexdigest())
    path = fetch(file, dataset="mine", mirror=str(tmp_path / "mirror"), cache=tmp_path, patience=QUICK)
    assert path == tmp_path / "mine" / "file.bin"
    with pytest.raises(EqcollapseError, match=r"mirror/file\.bin: has the md5"):
        fetch(
            RemoteFile(**{**vars(file), "urls": ()}),
            dataset="other",
            mirror=str(tmp_path / "mirror"),
            cache=tmp_path,
        )


@pytest.mark.parametrize("mirror", ["http://[::1", "http://user:secret@a\u2100b/", "http://.x/", "https://a:b"])
def test_a_mirror_that_is_no_address_is_one_line(tmp_path, mirror):
    with pytest.raises(EqcollapseError, match=r"tried (what is no address|http)") as caught:
        fetch(RemoteFile("file.bin", (), 10), dataset="mine", mirror=mirror, cache=tmp_path, patience=QUICK)
    assert str(caught.value).isprintable()
    assert "secret" not in str(caught.value)


def test_no_network_is_one_line_that_names_file_addresses_and_mirror(tmp_path):
    file = RemoteFile("file.bin", ("http://127.0.0.1:9/a/file.bin", "http://user:secret@nowhere.invalid/b?k=v"), 10)
    with pytest.raises(EqcollapseError) as caught:
        fetch(file, dataset="mine", mirror=None, cache=tmp_path, patience=QUICK)
    message = str(caught.value)
    assert message.startswith(
        "file.bin of mine: not to be had; tried http://127.0.0.1:9/a/file.bin: no connection; "
        "http://nowhere.invalid/b: no connection."
    )
    assert "secret" not in message
    assert "`mirror` in params.yaml" in message


def test_a_full_disk_is_told_before_anything_is_written(fetched, server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(EqcollapseError, match="300000 bytes are needed on this disk, 1000 are free"):
        fetched(good)


def test_of_two_at_once_one_downloads(fetched, server):
    errors = []

    def run():
        try:
            fetched(good)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(server.requests) == 1
