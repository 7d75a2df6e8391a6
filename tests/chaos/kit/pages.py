"""EventSources that are not ours: the npm package `eventsource` under node, and Chromium's own.

Each follows one task over all that happens, and in the end holds what a page would have made of it: the text
of each field, the ids in order, and every reconnect. Both reconnect by themselves; nobody helps them.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bridge.events import Position
from tests.tools import JS, find_tool

END_SECONDS = 60.0

_PAGE = """<!doctype html><title>chaos</title><script>
const facts = [];
const source = new EventSource(%(url)s);
for (const kind of ["state", "chunk", "progress", "data", "reset", "end"]) {
  source.addEventListener(kind, ({data, lastEventId}) => {
    facts.push({type: "event", kind, data, id: lastEventId});
    if (facts.length === 1) fetch("/began", {method: "POST"});
  });
}
source.onerror = () => {
  facts.push({type: "error", closed: source.readyState === EventSource.CLOSED});
  if (source.readyState !== EventSource.CLOSED) return;
  fetch("/ended", {method: "POST", body: JSON.stringify(facts)});
};
</script>"""


class Page:
    """What a page saw. `began` is set with its first event."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = asyncio.Event()
        self.facts: list[dict[str, Any]] = []

    @property
    def texts(self) -> dict[str, str]:
        """The text of each field."""
        texts: dict[str, str] = defaultdict(str)
        for fact in self.of("chunk"):
            data = json.loads(fact["data"])
            texts[data.get("field", "text")] += data["text"]
        return texts

    @property
    def reconnects(self) -> int:
        """How often it lost its connection, the last time after the end not counted."""
        return len([fact for fact in self.facts if fact["type"] == "error" and not fact["closed"]]) - 1

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of a kind."""
        return [fact for fact in self.facts if fact.get("kind") == kind]

    @property
    def in_order(self) -> bool:
        """Whether the ids strictly increase."""
        ids = [Position.parse(fact["id"]) for fact in self.facts if fact["type"] == "event"]
        return ids == sorted(set(ids))

    async def ended(self) -> None:
        """Wait until its EventSource has given up, as it does when it is told that there is no more."""
        raise NotImplementedError


class NodePage(Page):
    """The npm package, by way of `tests/js/watch.js`."""

    def __init__(self, url: str) -> None:
        super().__init__("npm eventsource")
        self._url = url
        self._process: asyncio.subprocess.Process
        self._reader: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(str(find_tool("node")), "watch.js", self._url),
            cwd=JS,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        self._reader = asyncio.create_task(self._read(), name="page's facts")
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.facts.append(json.loads(line))
            if self.facts[-1]["type"] == "event":
                self.began.set()

    async def ended(self) -> None:
        """It ends by itself when no reconnect is pending."""
        async with asyncio.timeout(END_SECONDS):
            await self._reader


class ChromiumPage(Page):
    """A real browser, without a window. Its page comes from a server here, and tells us what it saw."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__("Chromium")
        self._url = url
        self._profile = folder / "chromium"
        self._done = asyncio.Event()
        self._server: asyncio.Server
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self._process = await asyncio.create_subprocess_exec(
            str(find_tool("chromium")),
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--no-proxy-server"),
            *("--disable-background-networking", "--disable-dev-shm-usage", "--mute-audio"),
            # The page and the gateway have two origins; whom a gateway lets in is not what is tested here.
            "--disable-web-security",
            f"--user-data-dir={self._profile}",
            f"http://127.0.0.1:{port}/",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._server.close()
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = [line.partition(":") for line in head.lower().splitlines()]
        size = next((int(value) for name, _, value in lines if name == "content-length"), 0)
        body = await reader.readexactly(size)
        if head.startswith("POST /began"):
            self.began.set()
        elif head.startswith("POST /ended"):
            self.facts = json.loads(body)
            self._done.set()
        answer = (_PAGE % {"url": json.dumps(self._url)}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n" + answer)
        await writer.drain()

    async def ended(self) -> None:
        """It tells when its EventSource is closed for good."""
        async with asyncio.timeout(END_SECONDS):
            await self._done.wait()
