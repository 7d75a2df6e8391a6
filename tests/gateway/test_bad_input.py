"""Whatever is sent: the right status, an error in the one shape, and nobody else is disturbed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from select import select
from urllib.parse import quote, quote_from_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.settings import Settings
from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer, watch
from tests.gateway.writer import Writer
from tests.waiting import DEADLINE_SECONDS, eventually

ERROR_TYPE = "application/json"


@pytest.fixture
def target(redis_url: str) -> Iterator[Running]:
    """A gateway with one stream on it, which must go on whatever the test sends to the gateway."""
    with (
        running(redis_url, longest_wait_seconds=0.01, unknown_task_wait_seconds=0.01) as gateway,
        # Known before anybody watches it: who asks for an unknown task is not waited with here.
        Writer(redis_url, "bystander").open() as writer,
        watch(gateway, "bystander") as viewer,
    ):
        writer.text("before ")
        viewer.text_is("before ")
        yield gateway
        writer.text("and after")
        viewer.text_is("before and after")
        writer.end()
        viewer.to_end()
        # A probe that is late on a busy machine makes it unready for a moment.
        eventually(lambda: gateway.get("/readyz").status_code == 200)


def send(gateway: Running, raw: bytes) -> Viewer:
    """Send these bytes and read the whole answer."""
    with Viewer(gateway, "", raw=raw) as viewer:
        return viewer.head().to_end()


def get(gateway: Running, target: str | bytes, *headers: bytes, method: bytes = b"GET") -> Viewer:
    """A request whose target and headers go out exactly as they are."""
    path = target if isinstance(target, bytes) else target.encode()
    return send(
        gateway, b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: test", *headers, b"", b""])
    )


def assert_error(viewer: Viewer, status: int, code: str) -> None:
    """An error in the one shape; its body is whole and nothing else."""
    assert viewer.status == status, (viewer.status, viewer.body)
    assert viewer.headers["content-type"] == ERROR_TYPE
    assert viewer.headers["cache-control"] == "no-store"
    error = json.loads(viewer.body)["error"]
    assert set(error) == {"code", "message"}
    assert error["code"] == code
    assert 0 < len(error["message"]) < 500


BAD_IDS = [
    "%00", "a%00b", "%0d%0a", "a%0d%0aX:%20x", "%ff", "%c3%28", "%f0%9f%98%80", "%20", "a%20b", "a+b",
    "{id}", "a%7Db", "a*", "x" * 201, "x" * 50_000, "a%3Fb", "a%23b", "%2e%2e%5c", "%u0041", "a%", "%zz", "é",
]  # fmt: skip


def test_bad_ids(target: Running) -> None:
    """400 `bad_task_id` on every path that takes an id; the message shows only a part of a long one."""
    for task_id in BAD_IDS:
        raw = task_id.encode() if task_id != "é" else quote(task_id).encode()
        for path in (b"/tasks/%b/events", b"/tasks/%b/status", b"/status/%b"):
            assert_error(get(target, path % raw), 400, "bad_task_id")
        assert_error(get(target, b"/tasks/%b/cancel" % raw, method=b"POST"), 400, "bad_task_id")
        if task_id not in ("a+b",):
            assert_error(get(target, b"/status?task_id=%b" % raw), 400, "bad_task_id")
    for query in (b"", b"?task_id=", b"?task_id", b"?id=job-1", b"?task_id=a&task_id="):
        assert_error(get(target, b"/status" + query), 400, "bad_task_id")


def test_no_id_at_all(target: Running) -> None:
    """Who forgot it is told that, and where it goes, instead of what an id looks like."""
    for query in ("", "?task_id=", "?id=job-1"):
        message = json.loads(get(target, f"/status{query}").body)["error"]["message"]
        assert message == "the task's id is missing: /status/ID, or /status?task_id=ID"


BAD_POSITIONS = [
    "x", "1", "1-", "-1-", "1-2-3", "--", "99999999999999999-1", "1-99999999999999999", "+1-1", "1.0-1",
    "1-0x1", "1e9-1", "1%20-1", "%D9%A3-%D9%A1", "1-1%00", "1-1%0a", "1-1%0d%0aid:%205", "%ff-1",
    "9" * 5000 + "-1", "null", "-2", "00", "undefined",
]  # fmt: skip


def test_bad_positions_in_the_query(target: Running) -> None:
    """400 `bad_position`, for streams and polls alike."""
    for position in BAD_POSITIONS:
        for path in ("/tasks/bystander/events", "/tasks/bystander/status", "/tasks/nobody/events"):
            assert_error(get(target, f"{path}?after={position}"), 400, "bad_position")


def test_bad_positions_in_the_header(target: Running) -> None:
    """400 `bad_position` also for bytes that are no text."""
    for position in [*(p.encode() for p in BAD_POSITIONS), b"\xff\xfe-1", b"\xc3\xa9", b"1-1\t1"]:
        assert_error(
            get(target, "/tasks/bystander/events", b"Last-Event-ID: " + position), 400, "bad_position"
        )


def test_huge_positions_are_positions(target: Running) -> None:
    """Sixteen digits are numbers that no log has reached: the client is reset, or waits, but never fails."""
    huge = "9999999999999999-9999999999999999"
    body = get(target, f"/tasks/bystander/status?after={huge}").body
    assert json.loads(body)["reset"] is True
    assert get(target, f"/tasks/nobody/events?after={huge}").status == 200


def test_bad_waits(target: Running) -> None:
    """400 for what is no number of seconds; any number that is too large means the longest wait."""
    for wait in ("nan", "-1", "-0.001", "-inf", "x", "", "0x10", "1,5", "1%00", "%ff", "--1", "1e", "1e309x"):
        assert_error(get(target, f"/tasks/bystander/status?wait={wait}"), 400, "bad_request")
    for wait in ("1e309", "inf", "9" * 400, "1e-400", "0"):
        assert get(target, f"/tasks/bystander/status?wait={wait}").status == 200


def test_strange_tags_never_match(target: Running) -> None:
    """An `If-None-Match` that isn't ours is answered with the view."""
    for tag in (b"", b"*", b'"', b'""', b'"\xff"', b'"1-1", "2-2"', b"W/", b'"' + b"9" * 5000 + b'"'):
        assert get(target, "/tasks/bystander/status", b"If-None-Match: " + tag).status == 200


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/tasks/bystander/events", {"GET", "HEAD", "POST"}),
        ("/tasks/bystander/status", {"GET", "HEAD"}),
        ("/status/bystander", {"GET", "HEAD"}),
        ("/status", {"GET", "HEAD"}),
        ("/tasks/bystander/cancel", {"POST"}),
        ("/tasks/bystander/end", {"POST"}),
        ("/tasks/bystander", {"POST"}),
        ("/healthz", {"GET", "HEAD"}),
        ("/readyz", {"GET", "HEAD"}),
        ("/openapi.json", {"GET", "HEAD"}),
    ],
)
def test_wrong_methods(target: Running, path: str, allowed: set[str]) -> None:
    """405 with the methods that are allowed, and nothing done."""
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} - allowed:
        viewer = get(target, path, method=method.encode())
        assert_error(viewer, 405, "method_not_allowed")
        assert set(viewer.headers["allow"].split(", ")) == allowed
    if allowed == {"POST"}:
        with Viewer(target, path, method="HEAD") as viewer:
            assert viewer.head().status == 405


def test_unknown_paths(target: Running) -> None:
    """404 in JSON, without a redirect, also for what almost is one of ours."""
    for path in (
        "/", "/tasks", "/tasks/", "/tasks/bystander/", "/tasks/bystander/events/",
        "/tasks/bystander/status/", "/tasks//status", "/tasks/a%2Fb/status", "/tasks/../healthz", "//healthz",
        "/healthz/", "/HEALTHZ", "/status/", "/status/a/b", "/favicon.ico", "/tasks/bystander/%65vents/x",
        "/%2e%2e/%2e%2e/etc/passwd", "/%00", "/%ff", "/" + "a/" * 2000,
    ):  # fmt: skip
        assert_error(get(target, path), 404, "not_found")


def test_bodies_where_none_belong(target: Running) -> None:
    """They are read and forgotten, whole, chunked or never sent; the answer is the same."""
    big = b"x" * 300_000
    for head, body in (
        (b"Content-Length: 5", b"hello"),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        (b"Content-Length: 300000", big),
        (b"Content-Length: 300000", b"never the rest"),
        (b"Content-Length: 18446744073709551615", b""),
        (b"Content-Type: application/json\r\nContent-Length: 4", b"\x00\xff{["),
    ):
        for line, status in (
            (b"GET /tasks/bystander/status HTTP/1.1", 200),
            (b"GET /tasks/nobody/status HTTP/1.1", 404),
            (b"POST /tasks/nobody/cancel HTTP/1.1", 404),
            (b"GET /tasks/nobody/events HTTP/1.1", 200),
        ):
            viewer = send(target, line + b"\r\nHost: test\r\n" + head + b"\r\n\r\n" + body)
            assert (viewer.status, line) == (status, line)


NOT_HTTP = [
    b"\x00\x00\x00\x00\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"get /healthz HTTP/1.1\r\n\r\n",
    b"NONSENSE /healthz HTTP/1.1\r\n\r\n",
    b"GET /health\x00z HTTP/1.1\r\n\r\n",
    b"GET /tasks/a b/status HTTP/1.1\r\n\r\n",
    b"GET /tasks/\xff\xfe/status HTTP/1.1\r\nHost: test\r\n\r\n",
    b"GET /healthz HTTP/9.9\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: te\x00st\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nContent-Length: many\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"POST /tasks/a/cancel HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"\xef\xbb\xbfGET /healthz HTTP/1.1\r\n\r\n",
]


@pytest.mark.parametrize("raw", NOT_HTTP)
def test_what_is_not_http(target: Running, raw: bytes) -> None:
    """400 in the shape of all errors, and the connection is closed."""
    viewer = send(target, raw)
    assert_error(viewer, 400, "bad_request")
    assert viewer.headers["connection"] == "close"


def test_requests_that_are_too_large(target: Running) -> None:
    """A head far beyond the limit is refused before it is whole, however it comes, and isn't collected."""
    much = b"x" * (Settings().max_head_bytes // 2)
    for first, more in (
        (b"GET /tasks/", much),
        (b"GET /healthz?", much),
        (b"GET /healthz HTTP/1.1\r\nCookie: ", much),
        (b"GET /healthz HTTP/1.1\r\n", b"".join(b"X-%d: y\r\n" % number for number in range(3000))),
    ):
        with Viewer(target, "", raw=first) as viewer:
            # It would never end; at some point the gateway has closed its side.
            with suppress(ConnectionError):
                while not select([viewer.socket], [], [], 0)[0]:
                    viewer.socket.sendall(more)
            viewer.head()
        assert viewer.status == 431
        assert viewer.headers["content-type"] == ERROR_TYPE


def test_a_second_request_on_a_connection_has_limits_of_its_own(target: Running) -> None:
    """Many requests of an allowed size on one connection are no large one."""
    connection = HTTPConnection(*target.address, timeout=DEADLINE_SECONDS)
    with closing(connection):
        for _ in range(6):
            connection.request("GET", "/healthz", headers={"Cookie": "x" * 20_000})
            answer = connection.getresponse()
            assert (answer.status, answer.read()[:1], answer.will_close) == (200, b"{", False)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    task_id=st.sampled_from([b"bystander", b"nobody"]) | st.binary(min_size=1, max_size=30),
    after=st.none() | st.binary(max_size=30) | st.from_regex(rb"[0-9]{1,18}-[0-9]{1,18}"),
    wait=st.none() | st.binary(max_size=8) | st.floats().map(lambda number: repr(number).encode()),
    tag=st.none() | st.binary(max_size=30),
    kind=st.sampled_from(["events", "status"]),
)
def test_no_input_is_a_server_error(
    target: Running, task_id: bytes, after: bytes | None, wait: bytes | None, tag: bytes | None, kind: str
) -> None:
    """For all ids, positions, waits and headers the answer is one of those that are documented."""
    query = "&".join(
        f"{name}={quote_from_bytes(value)}"
        for name, value in (("after", after), ("wait", wait))
        if value is not None
    )
    if task_id == b"bystander" and kind == "events":
        task_id = b"nobody"  # its stream would go on for ever
    headers = [] if tag is None else [b"If-None-Match: " + tag, b"Last-Event-ID: " + tag]
    viewer = get(target, f"/tasks/{quote_from_bytes(task_id, safe='')}/{kind}?{query}", *headers)
    documented = {200, 304, 400, 404}
    if kind == "events" and any(re.fullmatch(rb"\s*0+-0*1\s*", one or b"") for one in (after, tag)):
        documented.add(204)  # it has seen how a task ends that nobody created
    assert viewer.status in documented
    if viewer.status >= 400:
        assert set(json.loads(viewer.body)) == {"error"}
