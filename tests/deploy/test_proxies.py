"""Real proxies, as `deploy/` sets them up, between a client and a real gateway."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.sse import Decoder, Frame
from tests.deploy.proxies import Proxy, proxy, running_app
from tests.gateway.reports.reporter import KEY, TEXT, Sending
from tests.gateway.running import Running, running
from tests.gateway.writer import Writer
from tests.servers import free_port
from tests.waiting import DEADLINE_SECONDS, eventually

NAMES = [pytest.param(name, marks=pytest.mark.needs(name)) for name in ("nginx", "caddy")]
REPORT = "/bridge/tasks/job-1/events?attempt=a1"
STREAM = {"accept": "text/event-stream", "accept-encoding": "gzip"}


@dataclass(frozen=True)
class At:
    """Where something listens."""

    address: tuple[str, int]


async def seen(request: Request) -> Response:
    """What of a request arrives at the gateway."""
    answer = JSONResponse({"path": request.url.path, "headers": dict(request.headers)})
    answer.set_cookie("seen", "1")
    return answer


async def refused(_: Request) -> Response:
    """An answer of the gateway's own that a proxy might take for its absence."""
    return JSONResponse({"error": {"code": "redis_away"}}, 503, {"retry-after": "7"})


@pytest.fixture
def gateway(redis_url: str) -> Iterator[Running]:
    """A gateway below the path that the proxies know."""
    routes = [Route("/seen", seen), Route("/refused", refused)]
    with running(redis_url, base_path="/bridge", page=True, report_keys=KEY, extra_routes=routes) as one:
        yield one


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """One proxy after the other."""
    chosen: str = request.param
    return chosen


@pytest.fixture
def front(name: str, gateway: Running, tmp_path: Path) -> Iterator[Proxy]:
    """The proxy, with the gateway and an app behind it."""
    with running_app() as app, proxy(name, tmp_path, gateway=gateway.address[1], app=app) as one:
        yield one


def test_a_stream_arrives_piece_by_piece(front: Proxy, redis_url: str) -> None:
    """Each text is there before the worker writes the next one, uncompressed."""
    with Writer(redis_url) as writer:
        writer.open()
        piece_by_piece(front, writer)


def test_a_reader_that_takes_nothing_is_noticed_behind_it(name: str, redis_url: str, tmp_path: Path) -> None:
    """The proxy takes no more than the kernel holds for it: the gateway sees the stall, and closes. One that
    buffers would take the whole task, and keep it on its disk for a reader who never comes.
    """
    with (
        running(redis_url, base_path="/bridge", stall_timeout_seconds=0.5) as gateway,
        running_app() as app,
        proxy(name, tmp_path, gateway=gateway.address[1], app=app) as front,
        Writer(redis_url) as writer,
        socket.create_connection((httpx.URL(front.url).host, httpx.URL(front.url).port)) as client,
    ):
        writer.open()
        client.sendall(b"GET /bridge/tasks/job-1/events HTTP/1.1\r\nHost: test\r\n\r\n")
        eventually(lambda: gateway.followers("job-1") == 1)
        for _ in range(15 * 16):
            writer.text("x" * 65_000)
        eventually(lambda: gateway.followers("job-1") == 0)


def test_a_report_passes_while_it_is_produced(front: Proxy, gateway: Running, redis_url: str) -> None:
    """What a worker has written is read before its request ends, and megabytes are not too much."""
    url = httpx.URL(front.url)
    with (
        Writer(redis_url) as log,
        Sending(At((url.host, url.port or 0)), REPORT, {"Content-Type": TEXT}) as sending,
    ):
        sending.write("begun ")
        eventually(lambda: log.view().text == "begun ")
        for _ in range(40):
            sending.write("x" * 65_536)
        assert sending.finish()["status"] == 200
        assert len(log.view().text) == 6 + 40 * 65_536


def test_a_client_resumes_through_it(front: Proxy, redis_url: str) -> None:
    """Last-Event-ID arrives, so the stream goes on where it was; with the id of the end it is over."""
    with Writer(redis_url) as writer:
        writer.open().text("one")
        position = str(writer.log()[-1].position)
        writer.text("two")
        writer.end()
        end = str(writer.log()[-1].position)
    rest = front.get("/bridge/tasks/job-1/events", headers={**STREAM, "last-event-id": position})
    assert [frame.event for frame in Decoder().feed(rest.content)] == ["chunk", "end"]
    again = front.get("/bridge/tasks/job-1/events", headers={**STREAM, "last-event-id": end})
    assert again.status_code == 204


def test_cookies_and_paths_pass_unchanged(front: Proxy) -> None:
    """Under the app's host the gateway gets the app's cookies and its own path, and may set cookies."""
    answer = front.get("/bridge/seen?x=%2F1", headers={"cookie": "session=abc"})
    assert answer.json()["path"] == "/bridge/seen"
    assert answer.json()["headers"]["cookie"] == "session=abc"
    assert answer.json()["headers"]["host"] == httpx.URL(front.url).netloc.decode()
    assert answer.cookies["seen"] == "1"


def test_the_page_is_found_without_its_slash(front: Proxy) -> None:
    """Whoever types only /bridge gets the page, at the path where its own files are found."""
    answer = front.get("/bridge?task=job-1", follow_redirects=True)
    assert answer.headers["content-type"].startswith("text/html")
    assert (answer.url.path, answer.url.query) == ("/bridge/", b"task=job-1")


def test_nobody_says_who_they_are(front: Proxy) -> None:
    """The client's address is the one that the proxy sees, whatever the client claims."""
    answer = front.get("/bridge/seen", headers={"x-forwarded-for": "1.2.3.4", "x-forwarded-proto": "wss"})
    assert answer.json()["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert answer.json()["headers"]["x-forwarded-proto"] == "http"


def test_all_else_is_the_apps(front: Proxy) -> None:
    """Only the bridge's path leads to the gateway."""
    for path in ("/", "/tasks/job-1/events", "/bridges"):
        assert front.get(path, headers={"cookie": "session=abc"}).text == f"app {path} session=abc"


@pytest.mark.parametrize(
    "path",
    [
        "metrics",
        "metrics?x=1",
        "metrics/",
        "/metrics",
        "./metrics",
        "x/../metrics",
        "%6detrics",
        "metric%73",
        "METRICS",
    ],
)
def test_nobody_outside_reads_the_metrics(front: Proxy, gateway: Running, path: str) -> None:
    """However the path is written; the gateway itself still answers."""
    assert gateway.get("/metrics").status_code == 200
    host, port = httpx.URL(front.url).host, httpx.URL(front.url).port
    with socket.create_connection((host, port), timeout=DEADLINE_SECONDS) as client:
        client.sendall(f"GET /bridge/{path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"bridge_build_info" not in answer
    if path == "metrics":
        assert answer.partition(b"\r\n\r\n")[2] == b'{"error":{"code":"not_found","message":"Not Found"}}'


def test_what_the_gateway_answers_passes(front: Proxy) -> None:
    """A 503 of the gateway's own, also to a stream, isn't taken for its absence."""
    for headers in ({}, STREAM):
        answer = front.get("/bridge/refused", headers=headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
        assert answer.json()["error"]["code"] == "redis_away"


def test_an_absent_gateway_ends_no_event_source(name: str, tmp_path: Path) -> None:
    """A stream gets a 200 that tells it to come back; anybody else an error with `Retry-After`."""
    with running_app() as app, proxy(name, tmp_path, gateway=free_port(), app=app) as front:
        stream = front.get("/bridge/tasks/job-1/events", headers=STREAM)
        poll = front.get("/bridge/tasks/job-1/status")
    assert (stream.status_code, stream.headers["content-type"]) == (200, "text/event-stream")
    assert stream.headers["cache-control"] == "no-store"
    assert stream.text.startswith("retry: 3000\n\n")
    assert not list(Decoder().feed(stream.content))
    assert poll.status_code in (502, 503)
    assert poll.headers["retry-after"] == "3"


def piece_by_piece(front: Proxy, writer: Writer) -> None:
    """Read the task as its worker writes it; a proxy that holds text back runs into the timeout."""
    url = front.url + "/bridge/tasks/job-1/events"
    with httpx.stream("GET", url, headers=STREAM, timeout=DEADLINE_SECONDS) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        assert "content-encoding" not in answer.headers
        frames = read(answer)
        assert next(frames).event == "state"
        for text in ("one", "two", "three"):
            writer.text(text)
            assert text in next(frames).data
        writer.end()
        assert [frame.event for frame in frames] == ["end"]


def read(answer: httpx.Response) -> Iterator[Frame]:
    """The events as they come."""
    decoder = Decoder()
    for piece in answer.iter_raw():
        yield from decoder.feed(piece)
