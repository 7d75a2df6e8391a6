"""The example of docs/sinks.md, run against a server that looks like the one it is for."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge.worker import process
from tests.gateway.running import running

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "mattermost.py"


class Mattermost:
    """Keeps posts. The third request is too much for it."""

    def __init__(self) -> None:
        self.posts: dict[str, list[str]] = {}
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self._answer(201, lambda said: outer._new(said))

            def do_PUT(self) -> None:
                self._answer(200, lambda said: outer._patch(self.path.split("/")[4], said))

            def _answer(self, status: int, do: Any) -> None:
                said = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert self.headers["authorization"] == "Bearer token"
                outer.asked += 1
                busy = outer.asked == 3
                body = b"{}" if busy else json.dumps(do(said)).encode()
                self.send_response(429 if busy else status)
                self.send_header("retry-after", "0")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the base's)
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def _new(self, said: dict[str, str]) -> dict[str, str]:
        assert said["channel_id"] == "channel"
        post = f"post{len(self.posts)}"
        self.posts[post] = [said["message"]]
        return {"id": post}

    def _patch(self, post: str, said: dict[str, str]) -> dict[str, str]:
        self.posts[post].append(said["message"])
        return {"id": post}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def mattermost() -> Iterator[Mattermost]:
    """A server of the test's own."""
    one = Mattermost()
    yield one
    one.stop()


@pytest.mark.parametrize("good", [True, False])
async def test_the_example_shows_a_task(
    redis_url: str, mattermost: Mattermost, monkeypatch: pytest.MonkeyPatch, good: bool
) -> None:
    """One post that grows to the whole text, and says how it ended if not well."""
    spec = importlib.util.spec_from_file_location("mattermost_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "EDIT_SECONDS", 0.01)
    with running(redis_url) as gateway:
        monkeypatch.setenv("MATTERMOST_URL", mattermost.url)
        monkeypatch.setenv("MATTERMOST_TOKEN", "token")
        monkeypatch.setenv("BRIDGE_GATEWAY_URL", gateway.url)
        bridge.configure(redis_url=redis_url)
        with bridge.task("job-1") as task:
            task.report_progress("Hello, ")
            task.report_progress("world")
            if not good:
                task.fail("no_model", "The model is away.")
        await example.main("job-1", "channel")
        process.reset()
    (said,) = mattermost.posts.values()
    assert said[-1] == "Hello, world" + ("" if good else "\n\n*Failed: The model is away.*")
    assert len(set(said)) == len(said)


def test_the_page_shows_the_example() -> None:
    """`docs/sinks.md` holds the file that is run here, which is short."""
    source = EXAMPLE.read_text()
    assert source in (ROOT / "docs" / "sinks.md").read_text()
    assert len(source.splitlines()) < 80
