"""The gateway inside somebody else's app, and below a path of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

from bridge.gateway.app import Gateway, create_app
from bridge.settings import Settings
from tests.gateway.running import QUICK, running
from tests.gateway.viewer import Viewer
from tests.gateway.writer import Writer
from tests.waiting import DEADLINE_SECONDS, eventually


class Parent:
    """An app with a page of its own that mounts a gateway below /bridge, under a plain uvicorn."""

    def __init__(self, redis_url: str, **settings: Any) -> None:
        self.gateway = create_app(Settings(redis_url=redis_url, **{**QUICK, **settings}))

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with self.gateway.lifespan():
                yield

        async def page(_: object) -> PlainTextResponse:
            return PlainTextResponse("the app's own page")

        app = Starlette(routes=[Route("/", page), Mount("/bridge", self.gateway)], lifespan=lifespan)
        self.server = uvicorn.Server(
            uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1, lifespan="on")
        )
        self._thread = threading.Thread(target=self.server.run, daemon=True)
        self._thread.start()
        eventually(lambda: self.server.started)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.server.servers[0].sockets[0].getsockname()[:2]
        return host, port

    @property
    def url(self) -> str:
        host, port = self.address
        return f"http://{host}:{port}"

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()


def get(url: str | httpx.URL, **options: Any) -> httpx.Response:
    """One request."""
    return httpx.get(url, timeout=DEADLINE_SECONDS, verify=False, **options)


@contextmanager
def parent(redis_url: str, **settings: Any) -> Iterator[Parent]:
    """A running app that mounts a gateway."""
    one = Parent(redis_url, **settings)
    try:
        yield one
    finally:
        one.stop()


def test_a_mounted_gateway_serves(redis_url: str, writer: Writer) -> None:
    """Streams, polls and errors below the mount's path; the app's own pages beside it."""
    writer.open()
    with parent(redis_url) as app:
        eventually(lambda: get(f"{app.url}/bridge/readyz").status_code == 200)
        with Viewer(app, "/bridge/tasks/job-1/events") as viewer:
            viewer.until(lambda v: len(v.frames) == 1)
            writer.text("mounted")
            viewer.text_is("mounted")
            assert get(f"{app.url}/bridge/tasks/job-1/status").json()["text"] == "mounted"
            assert get(f"{app.url}/").text == "the app's own page"
            writer.end()
            viewer.to_end()
        missing = get(f"{app.url}/bridge/nothing")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


def test_a_client_that_takes_nothing_is_closed_under_any_server(
    redis_url: str, writer: Writer, expected_errors: list[str]
) -> None:
    """Without our own server the connection can't be cut, but the stream ends and frees its follower."""
    expected_errors.append("returned without completing response")
    writer.open()
    with parent(redis_url) as app:
        app.gateway.hub.settings = app.gateway.settings.with_(stall_timeout_seconds=0.2)
        with Viewer(app, "/bridge/tasks/job-1/events", receive_buffer=4096) as stuck:
            stuck.until(lambda v: len(v.frames) == 1)
            channel = app.gateway.hub._channels["job-1"]
            for _ in range(200):
                writer.text("x" * 40_000)
            eventually(lambda: not channel.followers)


def test_a_mounted_page_is_found(redis_url: str) -> None:
    """With its module below the mount's path; without the slash it's the parent that redirects."""
    with parent(redis_url, page=True) as app:
        page = get(f"{app.url}/bridge/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        for name in ("bridge.js", "page.js", "page.css"):
            assert get(page.url.join(name)).status_code == 200
        led = get(f"{app.url}/bridge?task=job-1", follow_redirects=True)
        assert (led.url.path, led.url.query, led.content) == ("/bridge/", b"task=job-1", page.content)
        assert get(f"{app.url}/").text == "the app's own page"


def test_cors_of_a_mounted_gateway_is_its_own(redis_url: str) -> None:
    """Its answers carry the headers, also that nothing is there; those of the app beside it don't."""
    origin = {"Origin": "https://app.example"}
    with parent(redis_url, cors_origins="https://app.example") as app:
        for path, allowed in (
            ("/bridge/healthz", "https://app.example"),
            ("/bridge/nothing", "https://app.example"),
            ("/", None),
        ):
            answer = get(app.url + path, headers=origin)
            assert answer.headers.get("access-control-allow-origin") == allowed


@pytest.mark.parametrize("base_path", ["", "/live"])
async def test_routes_of_others(base_path: str) -> None:
    """A gateway takes more routes, below its path: they find it, and their errors look like its own."""

    async def extra(request: Request) -> JSONResponse:
        gateway = request.app
        if "bad" in request.query_params:
            raise HTTPException(429, "Too many of these.")
        return JSONResponse([request.path_params["name"], gateway.running_hub() is gateway.hub])

    settings = Settings(base_path=base_path, redis_url="redis://127.0.0.1:1/0")
    gateway = Gateway(settings, extra_routes=[Route("/extra/{name}", extra), Route("/healthz", extra)])
    transport = httpx.ASGITransport(app=Starlette(routes=[Mount("/bridge", gateway)]))
    async with gateway.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get(f"/bridge{base_path}/extra/x")
        assert answer.json() == ["x", True]
        refused = await client.get(f"/bridge{base_path}/extra/x?bad=1")
        assert (refused.status_code, refused.json()["error"]["message"]) == (429, "Too many of these.")
        assert (await client.get(f"/bridge{base_path}/healthz")).json()["status"] == "ok"
        assert (await client.get("/bridge/extra")).status_code == 404


@pytest.mark.parametrize("path", ["/bridge.js", "/tasks/job-1/events", "/tasks/job-1/status", "/healthz"])
async def test_a_gateway_whose_lifespan_is_not_entered_says_so(path: str) -> None:
    """503 with what the app's author has to do, on every path, streams too."""
    app = Starlette(routes=[Mount("/bridge", create_app(Settings()))])
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/bridge" + path)
    assert answer.status_code == 503
    assert "lifespan()" in answer.json()["error"]["message"]
    assert "retry-after" in answer.headers


def test_the_lifespan_can_be_entered_again_on_another_loop(redis_url: str, writer: Writer) -> None:
    """As the tests of an app do, which start and stop it many times."""
    writer.open()
    gateway = Gateway(Settings(redis_url=redis_url, **QUICK))

    async def once() -> int:
        async with gateway.lifespan():
            transport = httpx.ASGITransport(app=gateway)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return (await client.get("/tasks/job-1/status")).status_code

    assert [asyncio.run(once()) for _ in range(3)] == [200, 200, 200]


def test_base_path(redis_url: str, writer: Writer) -> None:
    """All paths move below it; nothing is left at the root, and nothing is redirected."""
    writer.open()
    with running(redis_url, base_path="/live/") as gateway:
        assert gateway.url.endswith("/live")
        assert gateway.get("/tasks/job-1/status").status_code == 200
        assert gateway.get("/readyz").status_code == 200
        assert gateway.get("/openapi.json").json()["servers"] == [{"url": "/live"}]
        with Viewer(gateway, "/live/tasks/job-1/events") as viewer:
            viewer.until(lambda v: len(v.frames) == 1)
        root = "http://{}:{}".format(*gateway.address)
        for path in ("/tasks/job-1/status", "/healthz", "/", "/live", "/live/", "/live/healthz/", "/livez"):
            answer = get(root + path)
            assert (path, answer.status_code) == (path, 404)
            assert answer.json()["error"]["code"] == "not_found"
