"""Requests that are handed to the app, and its answers, compared with asking it directly."""

from __future__ import annotations

import gzip
import socket
import threading
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import redis

from bridge.gateway.upstream.headers import to_app
from tests.credentials import TICKET_KEY
from tests.gateway.running import Running
from tests.gateway.upstream.conftest import Behind
from tests.gateway.upstream.legacy import Asked, Legacy, Reply, reply
from tests.gateway.viewer import watch
from tests.gateway.writer import Writer
from tests.waiting import eventually

HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding")


@dataclass(frozen=True, slots=True)
class Got:
    """An answer off the wire: its status, its headers in their order but for those of the connection, its
    body.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


def exchange(address: tuple[str, int], request: bytes) -> Got:
    """Send these bytes, and read until the other side closes."""
    data = b""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request)
        try:
            while piece := connection.recv(65536):
                data += piece
        except ConnectionResetError:
            pass
    head, found, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    whole = bool(found)
    length = dict(headers).get("content-length")
    if dict(headers).get("transfer-encoding") == "chunked":
        body, whole = _without_chunks(body)
    elif length is not None and not request.startswith(b"HEAD") and " 304" not in first:
        whole = len(body) == int(length)
    return Got(int(first.split(" ")[1]), [one for one in headers if one[0] not in HOP_BY_HOP], body, whole)


def _without_chunks(data: bytes) -> tuple[bytes, bool]:
    body = b""
    while True:
        size, found, data = data.partition(b"\r\n")
        if not found or len(data) < int(size, 16) + 2:
            return body, False
        if not int(size, 16):
            return body, True
        body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]


def get(gateway: Running | Legacy, target: str, *lines: str, method: str = "GET", body: bytes = b"") -> Got:
    """One request with these further header lines."""
    head = [f"{method} {target} HTTP/1.1", "Host: legacy", "Connection: close", *lines, "", ""]
    return exchange(gateway.address, "\r\n".join(head).encode() + body)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS: dict[str, Reply] = {
    "JSON": reply({"task_status": "STARTED", "n": 1}),
    "an odd status": reply(b"teapot", 418, type_="text/plain"),
    "417": reply({"task_status": 2}, 417),
    "an error": reply({"error": "no"}, 500),
    "nothing": Reply([b"HTTP/1.1 204 No Content\r\n\r\n"]),
    "not changed": Reply([b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n']),
    "a redirect": reply(b"", 302, [("Location", "http://elsewhere.example/in?next=%2Fx")]),
    "a redirect to itself": reply(b"", 302, [("Location", "/status/job-1")]),
    "cookies": reply(b"{}", 200, [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Secure")]),
    "gzip": reply(gzip.compress(b"hello " * 100), 200, [("Content-Encoding", "gzip"), ("Vary", "*")]),
    "a date and a server": reply(b"x", 200, [("Date", "Mon, 01 Jan 2001 00:00:00 GMT"), ("Server", "old/1")]),
    "chunks": Reply([CHUNKED + b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n"]),
    "until it closes": Reply([b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nabc"], "close"),
    "an old protocol": Reply([b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc"], "close"),
    "binary": reply(bytes(range(256)) * 10, type_="application/octet-stream"),
    "latin-1 in a header": reply(b"x", 200, [("X-Name", "M\xfcller")]),
    "caching": reply(b"x", 200, [("ETag", 'W/"1"'), ("Cache-Control", "max-age=9"), ("Retry-After", "3")]),
    "much": reply(b"0123456789" * 300_000),
}  # fmt: skip


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_come_back_unchanged(app: Legacy, in_front: Behind, kind: str) -> None:
    """Status, headers and body are what they are without us."""
    app.answer = lambda _: ANSWERS[kind]
    with in_front() as gateway:
        for target in ("/status/job-1", "/status?task_id=job-1", "/tasks/job-1/status", "/api/jobs/job-1"):
            direct, through = get(app, target), get(gateway, target)
            assert through.whole
            assert through == direct


def test_an_answer_of_two_lengths_has_the_one_that_is_true(app: Legacy, in_front: Behind) -> None:
    """Chunks go before a length, which then isn't said."""
    app.answer = lambda _: Reply([CHUNKED[:-2] + b"Content-Length: 30\r\n\r\n3\r\nabc\r\n0\r\n\r\n"])
    with in_front() as gateway:
        got = get(gateway, "/status/job-1")
        assert got.whole
        assert got.body == b"abc"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_comes_after_an_answer_is_nobody_s(app: Legacy, in_front: Behind, method: str) -> None:
    """What an app sends beyond its answer is not taken for the next one."""
    answer, other = reply({"status": "running", "text": "mine"}), reply({"status": "done", "text": "other's"})
    app.answer = lambda _: Reply([*answer.pieces, *other.pieces])
    with in_front() as gateway:
        for _ in range(3):
            get(gateway, "/status/job-2", method=method)
            assert get(gateway, "/status/job-1").body == b'{"status": "running", "text": "mine"}'
        with watch(gateway) as viewer:
            viewer.text_is("mine")
            asked = len(app.polls)
            eventually(lambda: len(app.polls) > asked + 3)
            assert viewer.view.state == "running"


def test_the_answer_to_head_has_the_same_headers(app: Legacy, in_front: Behind) -> None:
    """And no body, whatever its length says."""
    app.answer = lambda _: Reply([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nETag: a\r\n\r\n"])
    with in_front() as gateway:
        assert get(gateway, "/status/job-1", method="HEAD") == get(app, "/status/job-1", method="HEAD")


TARGETS = (
    "/status/job-1?a=1&a=2&b=%20%2F+x&empty=&ticket=theirs",
    "/status/job%2D1",
    "/status/a%20b?x=%zz",
    "/api/jobs/job-1?full=1",
    "/status?other=1",
    "/status?task_id=job-1;x",
    "/status/" + "x" * 300,
)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_requests_arrive_unchanged(app: Legacy, in_front: Behind, method: str) -> None:
    """Method, path and query to the byte, the client's headers and cookies, and its body."""
    app.answer = lambda _: reply(b"ok")
    lines = ["Cookie: session=ann; b=2", "Authorization: Basic YW5uOnB3", "X-Odd: a, b", "Accept: */*;q=0.1"]
    body = b"" if method in ("GET", "OPTIONS") else b'{"a":1}'
    if body:
        lines += [f"Content-Length: {len(body)}"]
    with in_front() as gateway:
        for target in TARGETS:
            assert get(gateway, target, *lines, method=method, body=body).status == 200
            get(app, target, *lines, method=method, body=body)
            through, direct = app.asked[-2:]
            assert (through.method, through.target, through.body) == (method, target, body)
            theirs = [one for one in direct.headers if one[0] != "connection"]
            *same, forwarded_for, host, proto, via, connection = through.headers
            assert same == theirs
            assert forwarded_for == ("x-forwarded-for", "127.0.0.1")
            assert host == ("x-forwarded-host", "legacy")
            assert proto == ("x-forwarded-proto", "http")
            assert (via[0], connection) == ("via", ("connection", "close"))


def test_a_body_without_a_length_is_handed_on(app: Legacy, in_front: Behind) -> None:
    """In chunks, as it comes."""
    app.answer = lambda asked: reply(asked.body)
    with in_front() as gateway:
        body = b"3\r\nabc\r\n5\r\ndefgh\r\n0\r\n\r\n"
        got = get(gateway, "/status/job-1", "Transfer-Encoding: chunked", method="POST", body=body)
        assert got.body == b"abcdefgh"


def test_a_body_that_is_too_large_is_refused(app: Legacy, in_front: Behind) -> None:
    """Requests that are handed on have the same limits as others."""
    app.answer = lambda _: reply(b"ok")
    with in_front(max_body_bytes=1000) as gateway:
        got = get(gateway, "/status/job-1", "Content-Length: 5000", method="POST", body=b"x" * 5000)
        assert got.status == 413


def test_polls_do_not_change_their_shape(app: Legacy, in_front: Behind) -> None:
    """An old client gets the app's answers before, while and after somebody streams the task."""
    app.tasks["job-1"] = {"status": "running", "text": "Hel"}

    def legacy_shape() -> bool:
        return all(
            get(gateway, target) == get(app, "/api/jobs/job-1")
            for target in ("/status/job-1", "/status?task_id=job-1", "/api/jobs/job-1")
        )

    def answer(asked: Asked) -> Reply:
        return reply(app.tasks["job-1"])

    app.answer = answer
    with in_front() as gateway, in_front() as other:
        assert legacy_shape()
        assert "position" not in get(gateway, "/tasks/job-1/status").body.decode()
        with watch(other) as viewer:
            viewer.text_is("Hel")
            assert legacy_shape()
            assert gateway.get("/tasks/job-1/status").json()["position"] == str(viewer.view.position)
            app.tasks["job-1"] = {"status": "done", "text": "Hello"}
            viewer.to_end()
        assert legacy_shape()
        assert gateway.get("/tasks/job-1/status").json()["text"] == "Hello"


def test_a_worker_s_task_is_answered_by_the_gateway(app: Legacy, in_front: Behind, writer: Writer) -> None:
    """On the status paths, in both ways of asking; other methods are refused as always."""
    app.answer = lambda _: reply(b"the app's")
    writer.open().text("a worker's")
    with in_front() as gateway:
        for path in ("/status/job-1", "/status?task_id=job-1", "/tasks/job-1/status"):
            assert gateway.get(path).json()["text"] == "a worker's"
            assert gateway.post(path).status_code == 405
        assert app.asked == []
        assert gateway.get("/api/jobs/job-1").content == b"the app's"


def test_where_both_have_the_same_path_the_bridge_s_clients_are_known(app: Legacy, in_front: Behind) -> None:
    """An app whose status endpoint is `/tasks/{id}/status` keeps it; `after` or `wait` asks for the view."""
    app.answer = lambda _: reply({"status": "running", "text": "Hel"})
    with in_front(upstream_status="/tasks/{task_id}/status") as gateway:
        for _ in range(2):
            assert gateway.get("/tasks/job-1/status").json() == {"status": "running", "text": "Hel"}
            assert gateway.get("/tasks/job-1/status?after=0").json()["position"]


def test_further_paths_of_the_mapping_are_handed_on(app: Legacy, in_front: Behind, tmp_path: Any) -> None:
    """Patterns name them; what is the bridge's own stays the bridge's, and the rest is unknown."""
    mapping = tmp_path / "map.toml"
    mapping.write_text('preset = "plain"\npass = ["/api/**", "/login", "/tasks/**"]')
    app.answer = lambda asked: reply(asked.target)
    with in_front(upstream_mapping=str(mapping)) as gateway:
        for target in ("/api", "/api/x/y?z", "/login", "/tasks/1/2/3"):
            assert gateway.get(target).json() == target
        assert gateway.get("/healthz").json()["status"] == "ok"
        assert gateway.get("/tasks/nobody-1/status?after=0").status_code == 404
        assert gateway.get("/bridge.js").headers["content-type"].startswith("text/javascript")
        count = len(app.asked)
        for target in ("/admin", "/loginx", "/"):
            assert gateway.get(target).status_code == 404
        assert get(gateway, "/api/../admin").status == 404
        assert get(gateway, "/api/%2e%2e/admin").status == 404
        assert get(gateway, "/status/%2e%2e%2fadmin").status in (400, 404)
        assert len(app.asked) == count


def test_below_a_base_path(app: Legacy, in_front: Behind) -> None:
    """The gateway's own prefix is not the app's; the app's is."""
    app.answer = lambda asked: reply(asked.target)
    with in_front(base_path="/bridge", upstream=app.url + "/v1/") as gateway:
        assert gateway.get("/status/job-1?a=1").json() == "/v1/status/job-1?a=1"
        assert gateway.get("/api/jobs/job-1").json() == "/v1/api/jobs/job-1"


def test_the_app_judges_who_may_poll(app: Legacy, in_front: Behind) -> None:
    """The gateway's door stands before streams and views; what is handed on brings its own credentials."""
    app.answer = lambda asked: reply({"who": asked.header("cookie")}, 200 if asked.header("cookie") else 401)
    with in_front(auth="jwt", ticket_keys=TICKET_KEY) as gateway:
        assert gateway.get("/status/job-1").json() == {"who": None}
        assert gateway.get("/status/job-1", headers={"cookie": "s=ann"}).json() == {"who": "s=ann"}
        assert gateway.get("/tasks/job-1/status?after=0").status_code == 401
        assert gateway.get("/tasks/job-1/events").status_code == 401
        assert gateway.post("/tasks/job-1/cancel").status_code == 401


def test_a_ticket_for_the_bridge_is_not_shown_to_the_app(app: Legacy, in_front: Behind) -> None:
    """On a path of the bridge's it is taken out of the URL; on another it may be the app's parameter."""
    app.answer = lambda _: reply(b"ok")
    with in_front(auth="jwt", ticket_keys=TICKET_KEY) as gateway:
        gateway.get("/tasks/job-1/status?a=1&ticket=s3cret")
        gateway.get("/status/job-1?ticket=theirs&a=1")
    assert [asked.target for asked in app.asked] == [
        "/tasks/job-1/status?a=1",
        "/status/job-1?ticket=theirs&a=1",
    ]


def test_limits_hold_for_what_is_handed_on(app: Legacy, in_front: Behind) -> None:
    """So many polls per second from one address, whoever answers them."""
    app.answer = lambda _: reply(b"ok")
    with in_front(polls_per_second=1, unlimited_addresses="") as gateway:
        gateway.stop_windows()
        answers = [gateway.get("/api/jobs/job-1") for _ in range(8)]
        assert [one.status_code for one in answers].count(200) == len(app.asked)
        assert answers[-1].status_code == 429
        assert answers[-1].json()["error"]["code"] == "too_many"


def test_redis_away_is_nothing_to_old_clients(app: Legacy, in_front: Behind) -> None:
    """They poll the app, as before."""
    app.answer = lambda _: reply(b"ok")
    with in_front(redis_url="redis://127.0.0.1:1/0", ready=False) as gateway:
        assert gateway.get("/status/job-1").content == b"ok"
        assert gateway.get("/tasks/job-1/status").content == b"ok"
        assert gateway.get("/tasks/job-1/status?after=0").status_code == 503


# --- trouble ------------------------------------------------------------------------------------------------


def test_an_app_that_is_down(app: Legacy, in_front: Behind) -> None:
    """502 in the shape of our errors, and 200 again when it is back."""
    app.answer = lambda _: reply(b"ok")
    with in_front() as gateway:
        app.stop()
        answer = gateway.get("/status/job-1")
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
        app.back()
        assert gateway.get("/status/job-1").content == b"ok"


@pytest.mark.parametrize(
    "said",
    [Reply([b"+PONG\r\n"], "close"), Reply([], "close"), Reply([b"HTTP/1.1 200 OK\r\nX"], "close"),
     Reply([b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"]),
     Reply([b"HTTP/1.1 200 OK\r\nX-A: a\x01b\r\nContent-Length: 0\r\n\r\n"]),
     Reply([b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"y" * 200_000 + b"\r\n\r\n"], "close")],
)  # fmt: skip
def test_an_app_that_speaks_no_http(app: Legacy, in_front: Behind, said: Reply) -> None:
    """502; nothing of what it said."""
    app.answer = lambda _: said
    with in_front() as gateway:
        assert gateway.get("/status/job-1").status_code == 502


def test_an_app_that_does_not_answer(app: Legacy, in_front: Behind) -> None:
    """504 after `upstream_pass_seconds`."""
    app.answer = lambda _: Reply([threading.Event()])
    with in_front(upstream_pass_seconds=0.2) as gateway:
        answer = gateway.get("/status/job-1")
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("end", ["close", "silence"])
def test_an_answer_that_breaks_off_does_not_look_whole(
    app: Legacy, in_front: Behind, framing: bytes, end: str
) -> None:
    """The client's connection breaks off, too."""
    head = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + b"3\r\nabc\r\n"
    pieces: list[bytes | threading.Event] = [head]
    app.answer = lambda _: Reply([head], "close") if end == "close" else Reply([*pieces, threading.Event()])
    with in_front(upstream_pass_seconds=0.2) as gateway:
        got = get(gateway, "/status/job-1")
        assert got.status == 200
        assert not got.whole


def test_a_client_that_leaves_takes_its_request_along(app: Legacy, in_front: Behind) -> None:
    """Before the answer, and within it."""
    pieces: list[bytes | threading.Event] = [threading.Event()]
    app.answer = lambda _: Reply(pieces)
    with in_front() as gateway:
        for said in ([], [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]):
            pieces[:] = [*said, threading.Event()]
            with socket.create_connection(gateway.address) as connection:
                connection.sendall(b"GET /status/job-1 HTTP/1.1\r\nHost: x\r\n\r\n")
                eventually(lambda: app.open == 1)
            eventually(lambda: app.open == 0)


def test_answers_are_streamed(app: Legacy, in_front: Behind) -> None:
    """A piece arrives before the next is said."""
    go_on = threading.Event()
    app.answer = lambda _: Reply([b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc", go_on, b"def"])
    with in_front() as gateway, httpx.Client(verify=False) as client:
        with client.stream("GET", gateway.url + "/status/job-1") as answer:
            pieces = answer.iter_raw()
            assert next(pieces) == b"abc"
            go_on.set()
            assert b"".join(pieces) == b"def"


def test_a_client_that_takes_nothing_is_given_up(app: Legacy, in_front: Behind) -> None:
    """The app is not held by it for ever."""
    app.answer = lambda _: reply(b"x" * 30_000_000)
    with in_front(stall_timeout_seconds=0.3) as gateway, socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(gateway.address)
        lazy.sendall(b"GET /status/job-1 HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: len(app.asked) == 1)
        eventually(lambda: app.open == 0)
        eventually(lambda: gateway.connections() == 0)


def test_requests_under_way_are_bounded(
    app: Legacy, in_front: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One too many waits a moment, and is then told to come back."""
    monkeypatch.setattr("bridge.gateway.upstream.connection.PLACE_SECONDS", 0.1)
    go_on = threading.Event()
    app.answer = lambda _: Reply([go_on, *reply(b"ok").pieces])
    with in_front(max_upstream_connections=2) as gateway:
        threads = [threading.Thread(target=gateway.get, args=("/status/job-1",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        eventually(lambda: app.open == 2)
        answer = gateway.get("/status/job-1")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upstream_busy")
        assert "retry-after" in answer.headers
        go_on.set()
        for thread in threads:
            thread.join()
        assert gateway.get("/status/job-1").status_code == 200


def test_an_upgrade_is_refused(app: Legacy, in_front: Behind) -> None:
    """There are no WebSockets here."""
    with in_front() as gateway:
        upgrade = [
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ]
        head = ["GET /status/job-1 HTTP/1.1", "Host: x", "Connection: Upgrade, close", *upgrade, "", ""]
        got = exchange(gateway.address, "\r\n".join(head).encode())
        assert got.status == 501
        assert app.asked == []


def test_a_circle_is_noticed(app: Legacy, in_front: Behind) -> None:
    """An app that leads back to the gateway doesn't keep it busy with itself."""

    def around(asked: Asked) -> Reply:
        return Reply([_raw(gateway.address, asked.head + b"\r\nConnection: close\r\n\r\n")], "close")

    app.answer = around
    with in_front() as gateway:
        assert gateway.get("/status/job-1").status_code == 508
        assert len(app.asked) == 1


def _raw(address: tuple[str, int], request: bytes) -> bytes:
    data = b""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request)
        while piece := connection.recv(65536):
            data += piece
    return data


# --- whom a request comes from ------------------------------------------------------------------------------

CLAIMS = [
    (b"host", b"www.example"), (b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"public.example"), (b"x-real-ip", b"203.0.113.9"),
    (b"forwarded", b"for=203.0.113.9"),
]  # fmt: skip


def test_a_client_s_word_on_where_it_comes_from_does_not_count() -> None:
    """Anybody could say anything."""
    sent = dict(to_app(CLAIMS, host=b"app", peer=b"192.0.2.1", trusted=False, scheme=b"http", via=b"us"))
    assert sent == {
        b"host": b"www.example", b"x-forwarded-for": b"192.0.2.1", b"x-forwarded-host": b"www.example",
        b"x-forwarded-proto": b"http", b"via": b"1.1 us",
    }  # fmt: skip


def test_a_trusted_proxy_s_word_is_handed_on() -> None:
    """With the proxy itself at the end of the list."""
    sent = dict(to_app(CLAIMS, host=b"app", peer=b"10.0.0.1", trusted=True, scheme=b"http", via=b"us"))
    assert sent[b"x-forwarded-for"] == b"203.0.113.9, 10.0.0.1"
    assert (sent[b"x-forwarded-proto"], sent[b"x-forwarded-host"]) == (b"https", b"public.example")
    assert sent[b"forwarded"] == b"for=203.0.113.9"


def test_what_is_the_connection_s_stays_there() -> None:
    """And what `Connection` names, but not what gives the rest its meaning."""
    given = [
        (b"connection", b"keep-alive, X-Mine, Host, Content-Length"), (b"keep-alive", b"5"),
        (b"x-mine", b"1"), (b"te", b"trailers"), (b"upgrade", b"h2c"), (b"proxy-authorization", b"x"),
        (b"expect", b"100-continue"), (b"host", b"h"), (b"content-length", b"3"), (b"cookie", b"a=1"),
        (b"cookie", b"b=2"), (b"via", b"1.0 old"),
    ]  # fmt: skip
    sent = to_app(given, host=b"app", peer=b"", trusted=False, scheme=b"http", via=b"us")
    assert [one for one in sent if not one[0].startswith(b"x-forwarded")] == [
        (b"host", b"h"), (b"content-length", b"3"), (b"cookie", b"a=1"), (b"cookie", b"b=2"),
        (b"via", b"1.0 old, 1.1 us"),
    ]  # fmt: skip


def test_nobody_can_take_away_a_proxy_s_word() -> None:
    """`Connection` may have come through the proxy as it was."""
    hidden = [*CLAIMS, (b"connection", b"close, X-Forwarded-For, X-Real-IP, Via"), (b"via", b"1.1 them")]
    sent = dict(to_app(hidden, host=b"app", peer=b"10.0.0.1", trusted=True, scheme=b"http", via=b"us"))
    assert sent[b"x-forwarded-for"] == b"203.0.113.9, 10.0.0.1"
    assert sent[b"x-real-ip"] == b"203.0.113.9"
    assert sent[b"via"] == b"1.1 them, 1.1 us"


def test_a_body_in_chunks_has_no_length_beside_it() -> None:
    """On the way to the app: two readers could find two ends, and a request of somebody else's between."""
    given = [(b"host", b"h"), (b"content-length", b"3"), (b"transfer-encoding", b"chunked")]
    sent = to_app(given, host=b"app", peer=b"", trusted=False, scheme=b"http", via=b"us")
    assert (b"transfer-encoding", b"chunked") in sent
    assert b"content-length" not in dict(sent)


def test_who_names_no_host_asks_for_the_app_s(app: Legacy, in_front: Behind) -> None:
    """As clients of HTTP/1.0 do."""
    app.answer = lambda _: reply(b"ok")
    with in_front() as gateway:
        assert exchange(gateway.address, b"GET /status/job-1 HTTP/1.0\r\n\r\n").status == 200
    assert app.asked[0].header("host") == app.url.removeprefix("http://")


def test_a_trusted_proxy_in_front(app: Legacy, in_front: Behind) -> None:
    """The app is told of the client that the proxy names."""
    app.answer = lambda _: reply(b"ok")
    with in_front(trusted_proxies="127.0.0.1") as gateway:
        gateway.get("/status/job-1", headers={"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"})
    assert app.asked[0].header("x-forwarded-for") == "203.0.113.9, 127.0.0.1"
    assert app.asked[0].header("x-forwarded-proto") == "https"


def test_nothing_is_written_about_what_is_handed_on(
    app: Legacy, in_front: Behind, redis_client: redis.Redis
) -> None:
    """A poll that the app answers leaves no trace in Redis, and starts no poller."""
    app.tasks["job-1"] = {"status": "running"}
    with in_front() as gateway:
        for _ in range(3):
            gateway.get("/api/jobs/job-1")
            gateway.get("/tasks/job-1/status")
        assert [key for key in redis_client.scan_iter() if b"job-1" in key] == []
        assert len(app.asked) == 6
