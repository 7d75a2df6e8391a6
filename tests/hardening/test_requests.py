"""Requests that are slow, large, or read differently by different servers.

Which bytes make up a request decides llhttp; what it takes and what not is shown here, because requests are
smuggled where a proxy in front takes them otherwise.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from bridge.gateway.limits import WINDOW_SECONDS
from bridge.settings import Settings
from tests.credentials import SECRET, token
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer, watch
from tests.gateway.writer import Writer
from tests.waiting import eventually

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: test\r\n"
POST = b"POST /tasks/job-1/cancel HTTP/1.1\r\nHost: test\r\n"
SMUGGLED = b"POST /tasks/victim/cancel HTTP/1.1\r\nHost: test\r\n\r\n"
QUICKLY = 0.2


@pytest.fixture
def impatient(redis_url: str, writer: Writer) -> Iterator[Running]:
    """A gateway that waits for a request hardly at all, with a stream that mustn't notice anything."""
    yield from _watched(redis_url, writer, request_seconds=QUICKLY)


@pytest.fixture
def small(redis_url: str, writer: Writer) -> Iterator[Running]:
    """A gateway that takes no large bodies, likewise."""
    yield from _watched(redis_url, writer, max_body_bytes=100_000)


def _watched(redis_url: str, writer: Writer, **settings: Any) -> Iterator[Running]:
    writer.open().text("before ")
    with running(redis_url, **settings) as gateway, watch(gateway) as viewer:
        viewer.text_is("before ")
        yield gateway
        writer.text("and after")
        viewer.until(lambda v: v.view.text.endswith("and after"))


def raw(gateway: Running, data: bytes) -> Viewer:
    """A connection on which exactly this was sent."""
    return Viewer(gateway, "", raw=data)


def assert_refused(viewer: Viewer, status: int, code: str) -> None:
    """An error in the one shape, and the connection is closed."""
    viewer.head().to_end()
    assert viewer.status == status, viewer.received
    assert viewer.headers["connection"] == "close"
    assert json.loads(viewer.body)["error"]["code"] == code


def rest_of(viewer: Viewer) -> bytes:
    """What the gateway says before it closes or resets the connection."""
    said = b""
    with suppress(ConnectionResetError):
        while data := viewer.socket.recv(65_536):
            said += data
    return said


# --- slow -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begun",
    [b"G", b"GET /healthz", b"GET /healthz HTTP/1.1\r\nHost: te", HEALTH, HEALTH + b"X: y\r", b"\r\nGET"],
)
def test_slow_headers(impatient: Running, begun: bytes) -> None:
    """A head that isn't whole in time is refused with 408, wherever it stopped."""
    with raw(impatient, begun) as viewer:
        assert_refused(viewer, 408, "too_slow")


def test_slow_headers_of_a_second_request(impatient: Running) -> None:
    """The same on a connection that was good once, also when both came together."""
    for first, then in ((HEALTH + b"\r\n", b"GET /heal"), (HEALTH + b"\r\nGET /heal", b"")):
        with raw(impatient, first) as viewer:
            assert viewer.socket.recv(65_536).startswith(b"HTTP/1.1 200 ")
            viewer.socket.sendall(then)
            assert b"HTTP/1.1 408 " in rest_of(viewer)  # perhaps behind the rest of the first answer


def test_headers_byte_by_byte(impatient: Running) -> None:
    """Sending a little all the time gains no time: the clock is the whole head's (slowloris)."""
    with raw(impatient, HEALTH + b"X: ") as viewer:
        viewer.socket.settimeout(QUICKLY / 10)
        said = b""
        while not said:
            viewer.socket.sendall(b"x")
            with suppress(TimeoutError):
                said = viewer.socket.recv(65_536)
        assert said.startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_says_nothing(impatient: Running) -> None:
    """It is closed without a word: browsers open connections in advance, and would take one for an answer."""
    with raw(impatient, b"") as viewer:
        assert rest_of(viewer) == b""


def test_line_ends_instead_of_a_request(impatient: Running) -> None:
    """They may stand before a request, but not for ever; also not after one."""
    for begun in (b"", HEALTH + b"\r\n"):
        with raw(impatient, begun) as viewer:
            viewer.socket.settimeout(QUICKLY / 10)
            eventually(lambda: _closed_while_sending(viewer, b"\r\n"))


def _closed_while_sending(viewer: Viewer, data: bytes) -> bool:
    try:
        viewer.socket.sendall(data)
        return viewer.socket.recv(65_536) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (POST + b"Content-Length: 5\r\n\r\nhel", (200, 408)),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel", (200, 408)),
        (POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", (200, 408)),
    ],
)
def test_slow_bodies(impatient: Running, head: bytes, status: tuple[int, ...]) -> None:
    """Nobody waits for a body that nobody reads: the answer may come before it. But then the connection is
    closed, for what came next couldn't be told from the rest of that body.
    """
    with raw(impatient, head) as viewer:
        said = rest_of(viewer)
    assert int(said.split(b" ")[1]) in status


@pytest.mark.parametrize("query", ["", "?wait=60"])
def test_a_slow_body_of_a_request_that_waits(impatient: Running, writer: Writer, query: str) -> None:
    """A long poll whose body never comes is refused; one of which all is there waits on."""
    position = writer.text("").position
    path = b"/tasks/job-1/status?wait=60&after=%b" % str(position).encode()
    head = b"GET " + path + b' HTTP/1.1\r\nHost: test\r\nIf-None-Match: "%b"\r\n' % str(position).encode()
    with (
        raw(impatient, head + b"Content-Length: 5\r\n\r\nhell") as slow,
        raw(impatient, head + b"\r\n") as whole,
    ):
        assert_refused(slow, 408, "too_slow")
        writer.text("more ")
        assert whole.to_end().status == 200
        writer.run(writer.calls.renew("job-1", token=writer.token, lease_ms=writer.lease_ms))


def test_a_slow_body_of_a_stream(impatient: Running) -> None:
    """A stream whose request is never whole is broken off: there is no other way left to say it."""
    head = b"GET /tasks/job-1/events HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhell"
    with raw(impatient, head) as viewer:
        viewer.head()
        assert viewer.status == 200
        viewer.to_end()
        assert viewer.received.count(b"HTTP/1.1 ") == 1
        assert not viewer.received.endswith(b"\r\n0\r\n\r\n")


def test_half_a_request_behind_a_stream(impatient: Running) -> None:
    """Whoever has a stream and sends half of another request keeps the stream: nothing is written into it."""
    request = b"GET /tasks/job-1/events HTTP/1.1\r\nHost: test\r\n\r\n"
    with raw(impatient, request + b"GET /heal") as viewer, raw(impatient, b"GET /heal") as other:
        viewer.text_is("before ")
        assert_refused(other, 408, "too_slow")  # so long has passed
        assert not viewer.closed
        assert impatient.followers("job-1") == 2


def test_keep_alive_is_no_slow_request(impatient: Running) -> None:
    """Between two requests a connection may be idle for longer than a request may take."""
    with raw(impatient, HEALTH + b"\r\n") as viewer, raw(impatient, b"GET") as clock:
        assert viewer.socket.recv(65_536).startswith(b"HTTP/1.1 200")
        assert_refused(clock, 408, "too_slow")
        viewer.socket.sendall(HEALTH + b"\r\n")
        assert viewer.socket.recv(65_536).startswith(b"HTTP/1.1 200")


def test_who_was_refused_and_stays(impatient: Running) -> None:
    """Is disconnected a moment later, whether it reads the refusal or not."""
    with raw(impatient, b"GET") as viewer:
        assert viewer.socket.recv(1, socket.MSG_PEEK)  # the refusal is there, and stays unread
        eventually(lambda: impatient.connections() == 1)


# --- large ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
def test_oversized_bodies(small: Running, chunked: bool) -> None:
    """What is too large is neither kept nor read to its end."""
    before = small.connections()
    head = b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: 1000000000\r\n\r\n"
    piece = b"1000\r\n" + b"x" * 4096 + b"\r\n" if chunked else b"x" * 4096
    with raw(small, POST + head) as viewer:
        with suppress(ConnectionError):
            for _ in range(10_000):
                viewer.socket.sendall(piece)
            pytest.fail("40 MB were taken")
    eventually(lambda: small.connections() == before)


@pytest.mark.parametrize(
    "endless", [b"0\r\nX: ", b"1;x=", b"0\r\nX: y\r\n"], ids=["value", "extension", "trailers"]
)
def test_oversized_trailers(gateway: Running, endless: bytes) -> None:
    """What chunks carry besides the body has an end, too."""
    with raw(gateway, POST + b"Transfer-Encoding: chunked\r\n\r\n" + endless) as viewer:
        with suppress(ConnectionError):
            for _ in range(1000):
                viewer.socket.sendall(b"X: yyyy\r\n" * 10_000 if endless.endswith(b"\n") else b"x" * 100_000)
            pytest.fail("100 MB were taken")


def test_an_oversized_body_of_a_request_that_waits(small: Running, writer: Writer) -> None:
    """413 in the shape of all errors, which the client sees, although it still sends."""
    position = str(writer.text("").position).encode()
    head = b'GET /tasks/job-1/status?wait=60 HTTP/1.1\r\nHost: test\r\nIf-None-Match: "%b"\r\n' % position
    with raw(small, head + b"Content-Length: 150000\r\n\r\n" + b"x" * 120_000) as viewer:
        assert_refused(viewer, 413, "too_large")


def test_oversized_headers(redis_url: str) -> None:
    """431 by the setting; just below it is fine."""
    with running(redis_url, ready=False, max_head_bytes=2000) as gateway:
        for size, status in ((1900, 200), (2100, 431)):
            for head in (b"GET /healthz?%b HTTP/1.1\r\nHost: test\r\n\r\n", HEALTH + b"X: %b\r\n\r\n"):
                filled = head % (b"x" * (size - len(head)))
                with raw(gateway, filled) as viewer:
                    assert viewer.head().status == status
            many = HEALTH + b"X: y\r\n" * ((size - len(HEALTH)) // 6) + b"\r\n"
            with raw(gateway, many) as viewer:
                assert viewer.head().status == status


def test_rubbish_behind_a_request_for_a_stream(gateway: Running, writer: Writer) -> None:
    """Who sends no HTTP behind a request, before it is answered, is refused, and nothing is written to them
    any more: those who follow the same task notice nothing.
    """
    writer.open().text("a")
    with watch(gateway) as other:
        other.text_is("a")
        request = b"GET /tasks/job-1/events HTTP/1.1\r\nHost: test\r\n\r\n"
        with raw(gateway, request + b"\0\r\n\r\n") as viewer:
            assert_refused(viewer, 400, "bad_request")
            writer.text("b")
            other.text_is("ab")
            eventually(lambda: gateway.followers("job-1") == 1)


@pytest.mark.parametrize("size", [1, 40_000])
def test_a_request_behind_a_stream_whose_client_leaves(redis_url: str, writer: Writer, size: int) -> None:
    """Both are forgotten without a word, whether the stream waits for events or for its client: uvicorn by
    itself would write on, and every such connection would leave a traceback in the log.
    """
    writer.open()
    request = b"GET /tasks/job-1/events HTTP/1.1\r\nHost: test\r\n\r\n"
    with running(redis_url, heartbeat_seconds=0.05) as gateway:
        with Viewer(gateway, "", raw=request + HEALTH + b"\r\n", receive_buffer=4096) as viewer:
            viewer.until(lambda v: len(v.frames) == 1)
            for _ in range(100):
                writer.text("x" * size)
        eventually(lambda: (gateway.followers(), gateway.connections()) == (0, 0))


def test_oversized_headers_behind_a_stream(gateway: Running, writer: Writer) -> None:
    """The stream is broken off, instead of an error being written into it."""
    writer.open().text("a")
    with watch(gateway) as viewer:
        viewer.text_is("a")
        with suppress(ConnectionError):
            for _ in range(2 * Settings().max_head_bytes // 1000):
                viewer.socket.sendall(b"GET /" + b"x" * 1000)
        viewer.to_end()
        assert viewer.received.count(b"HTTP/1.1 ") == 1


# --- smuggled -------------------------------------------------------------------------------------------

CHUNKED = b"Transfer-Encoding: chunked\r\n"
AMBIGUOUS = {
    "length and chunks": b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
    "chunks and length": CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + SMUGGLED,
    "the same length twice": b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
    "a list of lengths": b"Content-Length: 0, 0\r\n\r\n" + SMUGGLED,
    "a signed length": b"Content-Length: +0\r\n\r\n" + SMUGGLED,
    "a hexadecimal length": b"Content-Length: 0x0\r\n\r\n" + SMUGGLED,
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks, then something else": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two codings": CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a hidden coding": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a length with a space before the colon": b"Content-Length : 0\r\n\r\n" + SMUGGLED,
    "a folded header": b"X: a\r\n Content-Length: 5\r\n\r\n" + SMUGGLED,
    "a folded coding": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a bare LF": b"X: a\nContent-Length: 5\r\n\r\n" + SMUGGLED,
    "a bare CR": b"X: a\rContent-Length: 5\r\n\r\n" + SMUGGLED,
    "a NUL": b"X: a\0b\r\n\r\n" + SMUGGLED,
    "two hosts": b"Host: other\r\n\r\n" + SMUGGLED,
}
IN_CHUNKS = {
    "a bare LF after a size": b"0\n\r\n" + SMUGGLED,
    "a bare LF in an extension": b"0;\nx\r\n\r\n" + SMUGGLED,
    "a hexadecimal prefix": b"0x0\r\n\r\n" + SMUGGLED,
    "a sign": b"-0\r\n\r\n" + SMUGGLED,
    "a size that overflows": b"10000000000000000\r\n\r\n" + SMUGGLED,
    "more than the size": b"1\r\nab\r\n0\r\n\r\n" + SMUGGLED,
}


@pytest.fixture
def victim(redis_url: str) -> Iterator[Writer]:
    """A task that nobody asked to cancel."""
    with Writer(redis_url, "victim") as one:
        yield one.open()
        assert not one.renew().cancel_requested, "a request was smuggled"


@pytest.mark.parametrize("rest", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_smuggled_requests(gateway: Running, victim: Writer, rest: bytes) -> None:
    """Where two servers could disagree about a request's end, it is refused; nothing behind it is read."""
    with raw(gateway, b"POST /tasks/nobody/cancel HTTP/1.1\r\nHost: test\r\n" + rest) as viewer:
        assert_refused(viewer, 400, "bad_request")
        assert viewer.received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("rest", IN_CHUNKS.values(), ids=IN_CHUNKS)
def test_smuggled_in_chunks(gateway: Running, victim: Writer, rest: bytes) -> None:
    """The same for the borders of chunks."""
    head = b"POST /tasks/nobody/cancel HTTP/1.1\r\nHost: test\r\n" + CHUNKED + b"\r\n"
    with raw(gateway, head + rest) as viewer:
        assert_refused(viewer, 400, "bad_request")


def test_a_request_in_a_body(gateway: Running, victim: Writer) -> None:
    """A body of a GET is a body, however much it looks like a request."""
    body = b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED
    with raw(gateway, HEALTH + body + HEALTH + b"Connection: close\r\n\r\n") as viewer:
        said = rest_of(viewer)
    assert said.count(b"HTTP/1.1 ") == said.count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"CONNECT victim:80 HTTP/1.1\r\nHost: test\r\n\r\n",
    ],
)
def test_what_follows_the_last_request(gateway: Running, victim: Writer, head: bytes) -> None:
    """After `close`, and after a wish to upgrade, nothing is read; and the connection isn't left open for
    somebody whose request would never be seen.
    """
    with raw(gateway, head + SMUGGLED) as viewer:
        said = rest_of(viewer)
    assert said.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in said


LOOKALIKES = [
    b"%b_", b"_%b", b"%b ", b" %b", b"%b\t", b"%b\x00", b"%b\x0b", b"%b\xa0", b"%b.", b"HTTP_%b",
    b"HTTP-%b", b"(%b)", b'"%b"', b"%b\r", b"\n%b", b"X-%b", b"%b-X",
]  # fmt: skip
"""Names that one server takes for that header, and the proxy before it for another, which it passes on."""


@pytest.mark.parametrize("lookalike", LOOKALIKES)
def test_smuggled_headers(redis_url: str, writer: Writer, lookalike: bytes) -> None:
    """A header is what its name says, letter by letter, or the request is refused: credentials, and where a
    request comes from, stand in no other.
    """
    writer.create("ann")
    good = token(sub="ann").encode()
    with running(
        redis_url, auth="jwt", jwt_keys=SECRET, jwt_cookie="s", trusted_proxies="127.0.0.1",
        polls_per_second=1,
    ) as gateway:  # fmt: skip
        head = b"GET /tasks/job-1/status HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 203.0.113.5\r\n"
        for name, value in ((b"Authorization", b"Bearer " + good), (b"Cookie", b"s=" + good)):
            with raw(gateway, head + lookalike % name + b": " + value + b"\r\n\r\n") as viewer:
                assert viewer.to_end().status in (400, 401)
        statuses = []
        for number in range(WINDOW_SECONDS):
            forged = lookalike % b"X-Forwarded-For" + b": 198.51.100.%d\r\n\r\n" % number
            with raw(gateway, head + forged) as viewer:
                statuses.append(viewer.to_end().status)
        assert statuses[-1] in (400, 429)


def test_smuggled_underscores(redis_url: str, writer: Writer) -> None:
    """With CGI's names `X_Forwarded_For` is `X-Forwarded-For`; here it is nothing."""
    with running(redis_url, trusted_proxies="127.0.0.1", polls_per_second=1, ready=False) as gateway:
        statuses = []
        for number in range(WINDOW_SECONDS + 1):
            made_up = dict.fromkeys(("X_Forwarded_For", "X-Forwarded_For"), f"198.51.100.{number}")
            answer = gateway.get(
                "/tasks/nobody/status", headers={**made_up, "X-Forwarded-For": "203.0.113.5"}
            )
            statuses.append(answer.status_code)
    assert 429 not in statuses[:-1]
    assert statuses[-1] == 429


@pytest.mark.parametrize("name", [b"X-Forwarded-For: 203.0.113.5", b"If-None-Match: %b"])
def test_headers_in_trailers(redis_url: str, writer: Writer, name: bytes) -> None:
    """What comes behind a chunked body is no header: not the address that a proxy says, nor credentials."""
    position = writer.open().text("a").position
    trailer = name % f'"{position}"'.encode() if b"%b" in name else name
    with running(
        redis_url, trusted_proxies="127.0.0.1", unlimited_addresses="", polls_per_second=1
    ) as gateway:
        head = b"GET /tasks/job-1/status HTTP/1.1\r\nHost: test\r\n" + CHUNKED + b"\r\n0\r\n"
        answers = []
        for number in range(WINDOW_SECONDS + 1):
            with raw(gateway, head + trailer.replace(b"113.5", b"113.%d" % number) + b"\r\n\r\n") as viewer:
                answers.append(viewer.to_end().status)
    assert answers == [200] * WINDOW_SECONDS + [429]
