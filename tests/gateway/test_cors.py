"""Which pages of other origins may read the gateway's answers: all answers, or none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.gateway.running import Running, running
from tests.gateway.viewer import Viewer
from tests.gateway.writer import Writer

APP = "https://app.example"
LOCAL = "http://localhost:5173"
OTHER = "https://other.example"
EXPOSED = {"etag", "retry-after"}
ALLOWED = {"authorization", "cache-control", "content-type", "if-none-match", "last-event-id"}

ANSWERS: list[tuple[int, str, str, dict[str, str]]] = [
    (200, "GET", "/bridge.js", {}),
    (304, "GET", "/bridge.js", {"If-None-Match": "*"}),
    (200, "GET", "/bridge.d.ts", {}),
    (200, "GET", "/tasks/job-1/status", {}),
    (304, "GET", "/tasks/job-1/status", {"If-None-Match": '"POSITION"'}),
    (200, "GET", "/tasks/job-1/status?after=0&wait=1", {}),
    (404, "GET", "/tasks/nobody/status", {}),
    (400, "GET", "/tasks/job-1/status?after=x", {}),
    (400, "GET", "/tasks/job-1/events?after=x", {}),
    (200, "GET", "/tasks/job-1/events", {}),
    (204, "GET", "/tasks/job-1/events", {"Last-Event-ID": "POSITION"}),
    (200, "HEAD", "/tasks/job-1/events", {}),
    (200, "POST", "/tasks/job-1/cancel", {}),
    (404, "POST", "/tasks/nobody/cancel", {}),
    (405, "POST", "/tasks/job-1/status", {}),
    (404, "GET", "/nothing", {}),
    (200, "GET", "/healthz", {}),
    (200, "GET", "/openapi.json", {}),
]
"""Every kind of answer. The task has ended, so that streams end."""


@pytest.fixture
def position(writer: Writer) -> str:
    """The position of the task's end."""
    writer.open().text("all")
    return str(writer.end().position)


@pytest.fixture
def listed(redis_url: str) -> Iterator[Running]:
    """A gateway that lets two origins in."""
    with running(redis_url, cors_origins=f"{APP}, {LOCAL}") as one:
        yield one


def ask(gateway: Running, method: str, path: str, headers: dict[str, str], **more: Any) -> httpx.Response:
    """One request; a name of None as the origin leaves it out."""
    return httpx.request(method, gateway.url + path, headers=headers, timeout=30, **more)


def answers(
    gateway: Running, position: str, *, may_cancel: bool = True, **headers: str
) -> Iterator[httpx.Response]:
    """One of each kind of answer, asked for with these headers too. Who may not cancel gets 403 for that."""
    for allowed, method, path, own in ANSWERS:
        status = 403 if method == "POST" and path.endswith("/cancel") and not may_cancel else allowed
        filled = {name: value.replace("POSITION", position) for name, value in own.items()}
        answer = ask(gateway, method, path, {**filled, **headers})
        assert (method, path, answer.status_code) == (method, path, status)
        yield answer


def cors(answer: httpx.Response) -> dict[str, str]:
    """The CORS headers of an answer."""
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def words(text: str) -> set[str]:
    """The words of a list in a header, in lower case."""
    return {word.strip().lower() for word in text.split(",")}


def preflight(gateway: Running, path: str, origin: str, method: str, *headers: str) -> httpx.Response:
    """What a browser asks first."""
    named = {"Access-Control-Request-Headers": ",".join(headers)} if headers else {}
    asked = {"Origin": origin, "Access-Control-Request-Method": method, **named}
    return ask(gateway, "OPTIONS", path, asked)


@pytest.mark.parametrize("origin", [APP, LOCAL])
def test_a_listed_origin_may_read_every_answer(listed: Running, position: str, origin: str) -> None:
    """Module, streams, statuses, cancels and errors alike name that origin, and let credentials pass."""
    for answer in answers(listed, position, Origin=origin):
        said = cors(answer)
        assert words(said.pop("access-control-expose-headers")) == EXPOSED
        assert said == {
            "access-control-allow-origin": origin,
            "access-control-allow-credentials": "true",
        }
        assert "origin" in words(answer.headers["vary"])


@pytest.mark.parametrize(
    "origin",
    [OTHER, "null", "*", "https://app.example.evil.example", "https://evil-app.example", "http://app.example",
     "https://app.example:8443", "https://app.example, https://other.example", "https://APP.example"],
)  # fmt: skip
def test_another_origin_may_read_nothing(listed: Running, position: str, origin: str) -> None:
    """No answer names it, and caches are told that another origin may get another answer."""
    for answer in answers(listed, position, may_cancel=False, Origin=origin):
        assert "access-control-allow-origin" not in answer.headers
        assert "origin" in words(answer.headers["vary"])


def test_who_comes_without_an_origin_is_served_as_ever(listed: Running, position: str) -> None:
    """curl, workers and pages of the gateway's own origin."""
    for answer in answers(listed, position):
        assert cors(answer) == {}


def test_all_origins_never_with_credentials(redis_url: str, position: str) -> None:
    """`*` is said as `*`, whoever asks, also with a cookie; to a page that sent one no browser shows that."""
    with running(redis_url, cors_origins="*") as gateway:
        for headers in ({"Origin": OTHER}, {"Origin": "null"}, {"Origin": APP, "Cookie": "session=1"}):
            for answer in answers(gateway, position, may_cancel="Cookie" not in headers, **headers):
                said = cors(answer)
                assert words(said.pop("access-control-expose-headers")) == EXPOSED
                assert said == {"access-control-allow-origin": "*"}
        asked = preflight(gateway, "/tasks/job-1/cancel", OTHER, "POST", "authorization")
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in asked.headers


def test_without_the_setting_there_is_nothing_of_it(gateway: Running, position: str) -> None:
    """No header, not even a Vary; a preflight is a method that isn't there."""
    for answer in answers(gateway, position, may_cancel=False, Origin=APP):
        assert cors(answer) == {}
        assert "vary" not in answer.headers
    answer = preflight(gateway, "/tasks/job-1/events", APP, "GET", "last-event-id")
    assert (answer.status_code, cors(answer)) == (405, {})


@pytest.mark.parametrize(
    ("path", "method", "headers"),
    [
        ("/tasks/job-1/events", "GET", ["last-event-id", "authorization", "cache-control"]),
        ("/tasks/job-1/status", "GET", ["if-none-match", "authorization"]),
        ("/tasks/job-1/cancel", "POST", ["authorization", "content-type"]),
        ("/bridge.js", "HEAD", ["Cache-Control"]),
        ("/tasks/job-1/events", "GET", []),
    ],
)
@pytest.mark.parametrize("base_path", ["", "/live"])
def test_a_preflight_allows_what_clients_send(
    redis_url: str, path: str, method: str, headers: list[str], base_path: str
) -> None:
    """What fetch asks before it sends a position, a tag or credentials."""
    with running(redis_url, cors_origins=APP, base_path=base_path) as gateway:
        answer = preflight(gateway, path, APP, method, *headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert method in answer.headers["access-control-allow-methods"].split(", ")
    assert words(answer.headers["access-control-allow-headers"]) >= ALLOWED
    assert "origin" in words(answer.headers["vary"])


@pytest.mark.parametrize(
    ("origin", "method", "headers"),
    [
        (OTHER, "GET", []),
        ("null", "GET", []),
        (APP, "DELETE", []),
        (APP, "PUT", []),
        (APP, "GET", ["x-evil"]),
    ],
)
def test_a_preflight_refuses_everything_else(
    listed: Running, origin: str, method: str, headers: list[str]
) -> None:
    """Another origin, method or header: the browser doesn't send the request."""
    answer = preflight(listed, "/tasks/job-1/cancel", origin, method, *headers)
    assert answer.status_code == 400
    if origin != APP:
        assert "access-control-allow-origin" not in answer.headers
    assert method not in answer.headers["access-control-allow-methods"] or origin != APP or headers
    assert not words(answer.headers["access-control-allow-headers"]) & set(headers)


def test_a_preflight_changes_nothing(redis_url: str, writer: Writer) -> None:
    """Asking whether one may cancel doesn't cancel."""
    writer.open()
    with running(redis_url, cors_origins=APP) as gateway:
        preflight(gateway, "/tasks/job-1/cancel", APP, "POST")
        assert gateway.get("/tasks/job-1/status").json()["cancel_requested"] is False


def test_what_will_pass_can_be_read_too() -> None:
    """With Redis away a page sees 503 and when to come back, not a broken network; its stream says why."""
    settings: dict[str, Any] = {"cors_origins": APP, "outage_wait_seconds": 0.05, "heartbeat_seconds": 0.1}
    with running("redis://127.0.0.1:1/0", ready=False, **settings) as gateway:
        for path, status in (("/readyz", 503), ("/tasks/job-1/status", 503), ("/tasks/job-1/events", 200)):
            answer = ask(gateway, "GET", path, {"Origin": APP})
            assert (path, answer.status_code) == (path, status)
            assert answer.headers["access-control-allow-origin"] == APP


def test_a_bug_can_be_read_too(redis_url: str, expected_errors: list[str]) -> None:
    """A page sees the 500 with its JSON: CORS stands around the handler of bugs, too."""
    expected_errors.append("Exception in ASGI application")

    async def bug(_: Request) -> Response:
        raise RuntimeError("nobody thought of this")

    with running(redis_url, cors_origins=APP, extra_routes=[Route("/bug", bug)]) as gateway:
        answer = ask(gateway, "GET", "/bug", {"Origin": APP})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert answer.headers["access-control-allow-origin"] == APP
    assert "origin" in words(answer.headers["vary"])


def test_one_readers_origin_is_not_told_to_another(listed: Running, writer: Writer) -> None:
    """Streams have headers of their own each, although they are made from the same list."""
    writer.open()
    for origin in (APP, OTHER, LOCAL, APP):
        with Viewer(listed, "/tasks/job-1/events", headers={"Origin": origin}) as viewer:
            viewer.until(lambda v: len(v.frames) == 1)
            head = viewer.received.partition(b"\r\n\r\n")[0].decode().lower()
        assert head.count("access-control-allow-origin") == (0 if origin == OTHER else 1)
        assert viewer.headers.get("access-control-allow-origin", OTHER) == origin
        assert head.count("vary") == 1


def test_a_live_stream_of_another_origin_is_as_quick(redis_url: str, writer: Writer) -> None:
    """Each event is one write, as without."""
    writer.open()
    with (
        running(redis_url, cors_origins=APP, heartbeat_seconds=1000.0) as gateway,
        Viewer(gateway, "/tasks/job-1/events", headers={"Origin": APP}) as viewer,
    ):
        viewer.until(lambda v: len(v.frames) == 1)
        sends = len(viewer.sends)
        for number in range(1, 6):
            writer.text("x")
            viewer.text_is("x" * number)
        assert len(viewer.sends) == sends + 5
