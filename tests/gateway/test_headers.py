"""What every answer tells a browser not to do, and the page's own policy."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.routing import Route

from bridge.gateway.web import PAGE
from tests.credentials import TICKET_KEY
from tests.gateway.running import Running, running
from tests.gateway.test_cors import ANSWERS, ask, preflight
from tests.gateway.viewer import Viewer
from tests.gateway.writer import Writer
from tests.servers import free_port

NOWHERE = "redis://127.0.0.1:1/0"
POLICY = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "img-src": ["'self'"],
    "connect-src": ["'self'"],
    "form-action": ["'self'"],
    "base-uri": ["'none'"],
    "frame-ancestors": ["'none'"],
}


def sniffed(answer: httpx.Response) -> str | None:
    """None where browsers are told not to guess, else what was asked for."""
    if answer.headers.get_list("x-content-type-options") == ["nosniff"]:
        return None
    return f"{answer.request.method} {answer.request.url} {answer.status_code} {answer.headers}"


def test_no_answer_may_be_taken_for_something_else(gateway: Running, writer: Writer) -> None:
    """Streams, polls, files, 204, 304 and every error: what looks like HTML in a task's text is none."""
    writer.open().text("<script>alert(1)</script>")
    position = str(writer.end().position)
    for status, method, path, own in [*ANSWERS, (200, "GET", "/readyz", {})]:
        headers = {name: value.replace("POSITION", position) for name, value in own.items()}
        answer = ask(gateway, method, path, headers)
        assert (path, answer.status_code) == (path, status)
        assert sniffed(answer) is None


def test_nor_may_a_refusal() -> None:
    """Of credentials, of too many, of a gateway without Redis, also where a stream is told to come back."""
    away = f"redis://127.0.0.1:{free_port()}/0"
    stream = {"Accept": "text/event-stream"}
    with running(away, ready=False, auth="jwt", ticket_keys=TICKET_KEY) as gateway:
        answers = [ask(gateway, "GET", f"/tasks/x/{what}", stream) for what in ("status", "events")]
        assert [answer.status_code for answer in answers] == [401, 401]
    with running(away, ready=False, outage_wait_seconds=0, page=True, base_path="/b") as gateway:
        answers += [ask(gateway, "GET", path, stream) for path in ("/tasks/x/status", "/tasks/x/events", "")]
        assert [answer.status_code for answer in answers[2:]] == [503, 200, 307]
    limits: dict[str, Any] = {"unlimited_addresses": "", "polls_per_second": 1, "new_streams_per_second": 1}
    with running(away, ready=False, outage_wait_seconds=0, **limits) as gateway:
        gateway.stop_windows()
        for what in ("status", "events"):
            *_, last = [ask(gateway, "GET", f"/tasks/x/{what}", stream) for _ in range(5)]
            answers.append(last)
        assert [answer.status_code for answer in answers[5:]] == [429, 200]
    assert [said for said in map(sniffed, answers) if said] == []


def test_nor_may_a_preflight() -> None:
    """Allowed or not, and also where nothing is ever allowed."""
    for origins in ("https://app.example", ""):
        with running(NOWHERE, ready=False, cors_origins=origins) as gateway:
            for origin in ("https://app.example", "https://evil.example"):
                assert sniffed(preflight(gateway, "/bridge.js", origin, "GET")) is None


def test_nor_may_what_is_no_request() -> None:
    """What is refused before the application sees it."""
    with running(NOWHERE, ready=False) as gateway, Viewer(gateway, "", raw=b"nonsense\r\n\r\n") as viewer:
        viewer.to_end()
        assert viewer.status == 400
        assert viewer.headers["x-content-type-options"] == "nosniff"


def test_nor_may_a_bug(expected_errors: list[str]) -> None:
    """The answer to an error of ours."""
    expected_errors.append("Exception in ASGI application")

    async def broken(_: Request) -> None:
        raise ZeroDivisionError

    routes = [Route("/broken", broken)]
    with running(NOWHERE, ready=False, extra_routes=routes) as gateway:
        answer = gateway.get("/broken")
    assert (answer.status_code, sniffed(answer)) == (500, None)


@pytest.mark.parametrize("base_path", ["", "/live"])
def test_the_page_may_do_only_what_it_needs(base_path: str) -> None:
    """Load and ask its own gateway; run nothing that stands in it, be in no frame, hide its address."""
    with running(NOWHERE, ready=False, page=True, base_path=base_path) as gateway:
        page = gateway.get("/?task=job-42")
        again = gateway.get("/", headers={"If-None-Match": page.headers["etag"]})
        files = [gateway.get(path) for path in PAGE if path != "/"]
    for answer in (page, again):
        policy = [one.split() for one in answer.headers["content-security-policy"].split(";")]
        assert {name: sources for name, *sources in policy} == POLICY
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert again.status_code == 304
    assert [said for said in map(sniffed, (page, again, *files)) if said] == []
