"""What browsers load from the gateway: the module and the page."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from bridge.gateway.hub import Hub
from bridge.gateway.web import MODULE, PAGE, web_file
from bridge.settings import Settings
from tests.gateway.running import Running, running
from tests.waiting import DEADLINE_SECONDS

ROOT = Path(__file__).parent.parent.parent
SERVED = {**MODULE, **PAGE}
TYPES = {
    "/": "text/html; charset=utf-8",
    "/page.js": "text/javascript; charset=utf-8",
    "/page.css": "text/css; charset=utf-8",
    "/page.svg": "image/svg+xml",
    "/page.json": "application/json",
    "/bridge.js": "text/javascript; charset=utf-8",
    "/bridge.d.ts": "text/plain; charset=utf-8",
}
SERVE_ALL = """
import asyncio, sys, httpx, bridge
from bridge.gateway.app import Gateway
from bridge.settings import Settings

async def main():
    gateway = Gateway(Settings(page=True, redis_url="redis://127.0.0.1:1/0"))
    transport = httpx.ASGITransport(app=gateway)
    async with gateway.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in sys.argv[1:]:
            answer = await client.get(path)
            print(path, answer.status_code, answer.headers["etag"])

print(bridge.__file__)
asyncio.run(main())
"""


def content(path: str) -> bytes:
    """What lies in the package for a path."""
    return (files("bridge") / "web" / SERVED[path]).read_bytes()


@pytest.fixture(scope="module")
def page() -> Iterator[Running]:
    """A gateway with its page on. No Redis is needed for that."""
    with running("redis://127.0.0.1:1/0", ready=False, page=True) as one:
        yield one


@pytest.mark.parametrize("path", SERVED)
def test_each_file_is_served_as_what_it_is(page: Running, path: str) -> None:
    """Exactly the file, with a type that browsers take for it and don't guess, asked for anew each time."""
    answer = page.get(path)
    assert (answer.status_code, answer.content) == (200, content(path))
    assert answer.headers["content-type"] == TYPES[path]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", SERVED)
def test_a_browser_that_has_the_file_gets_304(page: Running, path: str) -> None:
    """However it writes the tag; the answer has the tag again and no body."""
    tag = page.get(path).headers["etag"]
    for has in (tag, f"W/{tag}", f'"other", W/{tag}', f'"other",{tag}', "*"):
        answer = page.get(path, headers={"If-None-Match": has})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
        assert answer.headers["cache-control"] == "no-cache"
    for has in ("", '"other"', tag.strip('"'), tag[:-2] + '"'):
        assert page.get(path, headers={"If-None-Match": has}).content == content(path)


def test_tags_differ_with_the_content(page: Running) -> None:
    """After an update no browser takes the old file for the new one."""
    assert len({page.get(path).headers["etag"] for path in SERVED}) == len(SERVED)


@pytest.mark.parametrize("path", SERVED)
def test_head_says_the_length(page: Running, path: str) -> None:
    """HEAD has the headers of GET, and no body."""
    answer = page.ask("HEAD", path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len(content(path))


def test_files_are_only_read(page: Running) -> None:
    """Nothing is uploaded, and nothing beside the named files is served."""
    answer = page.post("/bridge.js")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    for path in ("/page.html", "/web/page.js", "/bridge.js/", "/..%2fsettings.py", "/%2e%2e/settings.py"):
        assert page.get(path).status_code == 404


def test_without_the_setting_there_is_no_page(redis_url: str) -> None:
    """Only the module: what a front end needs stays, what shows tasks to people doesn't."""
    with running(redis_url) as gateway:
        for path in PAGE:
            answer = gateway.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        for path in MODULE:
            assert gateway.get(path).content == content(path)


class Loaded(HTMLParser):
    """What a page loads, and the scripts, styles and handlers that stand in it."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.urls += [url for name in ("src", "href") if (url := named.get(name)) is not None]
        if tag == "style" or (tag == "script" and "src" not in named):
            self.inline.append(tag)
        self.inline += [name for name in named if name == "style" or name.startswith("on")]


@pytest.mark.parametrize("base_path", ["", "/live", "/a/b"])
def test_all_that_the_page_loads_is_below_its_path(base_path: str) -> None:
    """Each URL in it is relative and leads to one of our files, as the page's content policy wants it."""
    with running("redis://127.0.0.1:1/0", ready=False, page=True, base_path=base_path) as gateway:
        page = gateway.get("/")
        loaded = Loaded()
        loaded.feed(page.text)
        urls = [url for url in loaded.urls if not url.startswith(("#", "data:"))]
        for url in urls:
            assert not url.startswith("/")
            assert "//" not in url
            target = page.url.join(url)
            assert str(target).startswith(gateway.url + "/")
            assert (
                httpx.get(target, timeout=DEADLINE_SECONDS).headers["content-type"]
                == TYPES["/" + url.removeprefix("./")]
            )
        assert {url.removeprefix("./") for url in urls} >= {"page.js", "page.css"}
        assert loaded.inline == []


@pytest.mark.parametrize("base_path", ["/live", "/a/b", "/job:1"])
@pytest.mark.parametrize("query", ["", "?task=job-42", "?task=a%26b&x=%C3%A4"])
def test_the_page_without_its_slash_leads_to_the_page(base_path: str, query: str) -> None:
    """By a relative redirect that keeps the query, right also behind a proxy that takes a prefix away."""
    with running("redis://127.0.0.1:1/0", ready=False, page=True, base_path=base_path) as gateway:
        answer = gateway.get(query)
        assert answer.status_code == 307
        for outside in ("", "/outside"):
            asked = httpx.URL(f"https://proxy.example{outside}{base_path}{query}")
            led = asked.join(answer.headers["location"])
            assert str(led) == f"https://proxy.example{outside}{base_path}/{query}"
        assert gateway.get(query, follow_redirects=True).content == content("/")


async def test_a_missing_file_says_what_is_wrong() -> None:
    """An installation that lacks a file serves all else, and names it to who asks for it."""
    serve = web_file("lost.js")
    with pytest.raises(HTTPException, match=r"bridge/web/lost\.js") as caught:
        await serve(Hub(Settings()), Request({"type": "http", "headers": []}))
    assert caught.value.status_code == 404


def test_an_installed_wheel_serves_the_same(page: Running, tmp_path: Path) -> None:
    """The files are in the wheel, and found where it is installed."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    said = subprocess.run(
        [sys.executable, "-c", SERVE_ALL, *SERVED],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert Path(said[0]).is_relative_to(installed)
    assert said[1:] == [f"{path} 200 {page.get(path).headers['etag']}" for path in SERVED]
