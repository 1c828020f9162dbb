"""What servers may answer to who fetches a file: as they should, badly, or to do harm.

An answer is a function of an http.server handler and of the first byte that was asked for.
"""

import time

import numpy as np

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])


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
    "chunks": [sends_chunks],
    "an encoding that is none": [compresses],
}
"""Answers, one a request and the last for good, in spite of which the file is got."""

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
"""Answers that no file is got from, and what is said of them."""
