"""The downloader against a server on this machine that stalls, drops and lies."""

import hashlib
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from eqcollapse.data.download import Patience, fetch
from eqcollapse.data.registry import RemoteFile
from eqcollapse.errors import EqcollapseError

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
QUICK = Patience(connect=2, read=0.2, head=0.4, window=0.15, min_rate=100_000, retries=2, gain=100_000, backoff=0.01)


@pytest.fixture
def server():
    """A server that gives its `answers` one a request, the last one for good.

    An answer is a function of the handler and of the first byte asked for. `requests` lists paths and Range
    headers.
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


def send(handler, status, headers, body):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, str(value))
    handler.end_headers()
    handler.wfile.write(body)


def good(handler, start, content=CONTENT):
    body = content[start:]
    if start >= len(content):
        send(handler, 416, {"Content-Range": f"bytes */{len(content)}"}, b"")
    elif start:
        ranges = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        send(handler, 206, {**ranges, "Content-Length": len(body)}, body)
    else:
        send(handler, 200, {"Content-Length": len(body)}, body)


def drops_after(count):
    def answer(handler, start):
        status = 206 if start else 200
        headers = {"Content-Range": f"bytes {start}-"} if start else {}
        send(
            handler,
            status,
            {**headers, "Content-Length": len(CONTENT) - start},
            CONTENT[start : start + count],
        )

    return answer


def ignores_ranges(handler, start):
    send(handler, 200, {"Content-Length": len(CONTENT)}, CONTENT)


def forgets_what_it_sent(handler, start):
    (fails(416) if start else drops_after(150_000))(handler, start)


def sends_another_range(handler, start):
    send(handler, 206, {"Content-Range": "bytes 5-9/10", "Content-Length": 5}, CONTENT[5:10])


def claims_the_range_but_sends_the_beginning(handler, start):
    body = CONTENT[: len(CONTENT) - start]
    send(handler, 206, {"Content-Range": f"bytes {start}-", "Content-Length": len(body)}, body)


def another_file(handler, start):
    good(handler, start, OTHER)


def stalls(handler, start):
    send(handler, 200, {"Content-Length": len(CONTENT)}, CONTENT[:1000])
    time.sleep(0.3)


def never_answers(handler, start):
    time.sleep(0.3)


def trickles(handler, start):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    try:
        for place in range(30):
            handler.wfile.write(CONTENT[place : place + 1])
            time.sleep(0.05)
    except OSError:
        pass


def says_too_little(handler, start):
    send(handler, 200, {"Content-Length": 1000}, CONTENT)


def says_too_much(handler, start):
    send(handler, 200, {"Content-Length": len(CONTENT) + 50}, CONTENT)


def says_nothing_about_its_length(handler, start):
    send(handler, 200, {}, CONTENT)


def announces_far_too_much(handler, start):
    send(handler, 200, {"Content-Length": 10**12}, b"")


def never_ends(handler, start):
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(CONTENT)
    except OSError:
        pass


def fails(status):
    return lambda handler, start: send(handler, status, {"Content-Length": 0}, b"")


def redirects(handler, start):
    if handler.path == "/elsewhere":
        good(handler, start)
    else:
        send(handler, 302, {"Location": "/elsewhere", "Content-Length": 0}, b"")


def says(status, *headers):
    """Answer with these bytes as headers and no body."""

    def answer(handler, start):
        handler.wfile.write(b"\r\n".join([b"HTTP/1.1 %d ." % status, *headers, b"", b""]))

    return answer


def goes_on(head, piece, pause=0.0):
    """Answer with `head`, and then with `piece` for as long as the other side listens, 3 s at most."""

    def answer(handler, start):
        end = time.monotonic() + 3
        try:
            handler.wfile.write(head)
            while time.monotonic() < end:
                handler.wfile.write(piece)
                time.sleep(pause)
        except OSError:
            pass
        handler.close_connection = True

    return answer


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ELSEWHERE = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n"


def sends_chunks(handler, start):
    handler.wfile.write(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(CONTENT), CONTENT))


def lets_go_on(handler, start):
    handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
    good(handler, start)


def redirects_to_a_drip(handler, start):
    if handler.path == "/elsewhere":
        goes_on(OK + b"X-Drip: ", b"x", 0.05)(handler, start)
    else:
        redirects(handler, start)


def redirects_without_an_end(handler, start):
    if handler.path == "/elsewhere":
        good(handler, start)
    else:
        goes_on(ELSEWHERE + b"\r\n", CONTENT)(handler, start)


def redirects_for_ever(handler, start):
    send(handler, 302, {"Location": handler.path + "x", "Content-Length": 0}, b"")


def compresses(handler, start):
    send(handler, 200, {"Content-Encoding": "gzip", "Content-Length": len(CONTENT)}, CONTENT)


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


RECOVERED = {
    "a drop": [drops_after(100_000), good],
    "many drops that gain": [drops_after(100_000)] * 3,
    "a drop, then a server without ranges": [drops_after(100_000), ignores_ranges],
    "a drop, then another range": [drops_after(100_000), sends_another_range, good],
    "a drop, then a range with the wrong bytes": [
        drops_after(100_000),
        claims_the_range_but_sends_the_beginning,
        good,
    ],
    "a drop, then HTTP 416": [drops_after(100_000), fails(416), good],
    "a stall": [stalls, good],
    "no answer": [never_answers, good],
    "a trickle": [trickles, good],
    "too small a length": [says_too_little, good],
    "too great a length": [says_too_much],
    "no length": [says_nothing_about_its_length],
    "overload": [fails(503), fails(429), good],
    "a redirection": [redirects],
    "a redirection with an endless body": [redirects_without_an_end],
    "100 Continue, often": [lets_go_on],
    "chunks": [
        lambda handler, start: handler.wfile.write(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(CONTENT), CONTENT))
    ],
    "an encoding that is none": [compresses],
}


@pytest.mark.parametrize("what", RECOVERED)
def test_it_gets_the_file_in_spite_of(fetched, what):
    started = time.monotonic()
    fetched(*RECOVERED[what])
    assert time.monotonic() - started < 5


GIVEN_UP = {
    "another file": ([another_file], "has the sha256"),
    "stalls": ([stalls], "timed out"),
    "no answer": ([never_answers], "timed out"),
    "trickles": ([trickles], "slower than 100000 bytes/s"),
    "404": ([fails(404)], "HTTP 404"),
    "503": ([fails(503)], "HTTP 503"),
    "a giant": ([announces_far_too_much], "1000000000000 bytes, more than the 400000"),
    "no end": ([never_ends], "sends more than the 400000 bytes"),
    "redirections": ([redirects_for_ever], "more than 5 redirections"),
    "a header a byte at a time": ([goes_on(OK + b"X-Drip: ", b"x", 0.05)], "no whole header within 0.4 s"),
    "endless headers": ([goes_on(OK, b"X: y\r\n")], "broke off"),
    "an endless line": ([goes_on(OK + b"X: ", b"y" * 1000)], "broke off"),
    "100 Continue for ever": ([goes_on(b"", b"HTTP/1.1 100 Continue\r\n\r\n")], "no whole header within 0.4 s"),
    "100 Continue now and then": ([goes_on(b"", b"HTTP/1.1 100 C\r\n\r\n", 0.05)], "no whole header within 0.4 s"),
    "a redirection to a header without an end": ([redirects_to_a_drip], "no whole header within 0.4 s"),
    "a redirection a byte at a time": ([goes_on(ELSEWHERE + b"X: ", b"x", 0.05)], "no whole header within 0.4 s"),
    "the length of a chunk, a digit at a time": ([goes_on(CHUNKED, b"0", 0.05)], "slower than 100000 bytes/s"),
    "chunks of a byte that say much": (
        [goes_on(CHUNKED, b"1;" + b"x" * 60_000 + b"\r\nx\r\n", 0.001)],
        "slower than 100000 bytes/s",
    ),
    "an end that does not end": ([goes_on(CHUNKED + b"0\r\n", b"X: y\r\n")], "slower than 100000 bytes/s"),
    "a length of 5000 digits": ([says(200, b"Content-Length: " + b"9" * 5000)], "a length of 5000 digits"),
    "two lengths": ([says(200, b"Content-Length: 5", b"Content-Length: 6")], "broke off"),
    "a redirection to no address": ([says(302, b"Location: http://[::1")], "redirects to what is no http"),
    "a redirection to no text": ([says(302, b"Location: http://\xff\xfe/")], "redirects to what is no http"),
    "a redirection to a file": ([says(302, b"Location: file:///etc/passwd")], "redirects to what is no http"),
    "a redirection to no host": ([says(302, b"Location: http://.a\x01/")], "no usable address|no connection"),
    "a redirection to no port": ([says(302, b"Location: http://localhost:99999/")], "no usable address"),
    "drops": ([drops_after(0)], "broke off"),
    "always another beginning": ([forgets_what_it_sent], "broke off|HTTP 416"),
    "wrong ranges": ([drops_after(10), sends_another_range], "another range"),
}


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
