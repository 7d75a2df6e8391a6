"""A gateway with an app behind it, inside yet another app, under a server that isn't ours."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.gateway.test_mount import Parent, parent
from tests.gateway.upstream.conftest import QUICK
from tests.gateway.upstream.legacy import Legacy, Reply, reply
from tests.gateway.upstream.test_passing import exchange
from tests.gateway.viewer import Viewer
from tests.waiting import eventually


def ask(server: Parent | Legacy, target: str, *, method: str = "GET", body: bytes = b"") -> list[object]:
    """What comes back of status, headers and body; but for the server's own name and clock."""
    length = [f"Content-Length: {len(body)}"] if body else []
    head = [f"{method} {target} HTTP/1.1", "Host: legacy", "Connection: close", *length, "", ""]
    got = exchange(server.address, "\r\n".join(head).encode() + body)
    headers = [one for one in got.headers if one[0] not in ("date", "server")]
    return [got.status, headers, got.body, got.whole]


def test_answers_come_back_whole(app: Legacy, redis_url: str) -> None:
    """Below the path of the mount, in both directions, with one date."""
    headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Date", "Mon, 01 Jan 2001 00:00:00 GMT")]
    app.answer = lambda asked: reply({"target": asked.target, "body": len(asked.body)}, 417, headers)
    with parent(redis_url, upstream=app.url, **QUICK) as server:
        for target in ("/status/job-1?a=%20b", "/api/jobs/job-1", "/tasks/job-1/status"):
            assert ask(server, "/bridge" + target) == ask(app, target)
        through = ask(server, "/bridge/status/job-1", method="POST", body=b"x" * 100_000)
        assert through == ask(app, "/status/job-1", method="POST", body=b"x" * 100_000)
        raw = exchange(
            server.address, b"GET /bridge/status/job-1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert len(raw.header("date")) == 1


def test_a_task_is_streamed(app: Legacy, redis_url: str) -> None:
    """As under our own server."""
    app.tasks["job-1"] = {"status": "done", "text": "Hello"}
    with parent(redis_url, upstream=app.url, **QUICK) as server:
        with Viewer(server, "/bridge/tasks/job-1/events") as viewer:
            assert viewer.to_end().view.text == "Hello"


def test_a_client_that_leaves_takes_its_request_along(app: Legacy, redis_url: str) -> None:
    """Also where only `receive` tells."""
    app.answer = lambda _: Reply([threading.Event()])
    with parent(redis_url, upstream=app.url, **QUICK) as server:
        with socket.create_connection(server.address) as connection:
            connection.sendall(b"GET /bridge/status/job-1 HTTP/1.1\r\nHost: x\r\n\r\n")
            eventually(lambda: app.open == 1)
        eventually(lambda: app.open == 0)


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_an_answer_that_breaks_off_does_not_look_whole(
    app: Legacy, redis_url: str, framing: bytes, expected_errors: list[str]
) -> None:
    """The server closes the connection, and its log says why."""
    expected_errors += ["Exception in ASGI application"]
    app.answer = lambda _: Reply([b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n3\r\nabc\r\n"], "close")
    with parent(redis_url, upstream=app.url, **QUICK) as server:
        status, _, _, whole = ask(server, "/bridge/status/job-1")
        assert (status, whole) == (200, False)
