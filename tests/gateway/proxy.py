"""A TCP relay in front of Redis that can make the gateway's pub/sub link silent, or cut it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from tests.waiting import DEADLINE_SECONDS, eventually


class Proxy:
    """Relays all connections. Those that carry a SUBSCRIBE are links, and can be disturbed."""

    def __init__(self, redis_url: str) -> None:
        parts = urlsplit(redis_url)
        self._target = (parts.hostname, parts.port)
        self._path = parts.path
        self._port = 0
        self._silent = False
        self._links: set[asyncio.StreamWriter] = set()
        self.links_made = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        eventually(lambda: self._port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}{self._path}"

    def silence(self) -> None:
        """From now on nothing that Redis sends over the links of this moment arrives."""
        self._silent = True

    def cut(self) -> None:
        """Close the links; those that are made from now on are well."""
        self._silent = False
        self._call(self._cut)

    def stop(self) -> None:
        self._call(self._stop.set)
        self._thread.join(DEADLINE_SECONDS)

    def _call(self, function: Callable[[], object]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function)

    def _cut(self) -> None:
        for link in self._links:
            link.transport.abort()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        await self._stop.wait()
        server.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(*self._target)
        up = asyncio.create_task(self._up(reader, to_writer, writer))
        down = asyncio.create_task(self._down(to_reader, writer))
        try:
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            self._links.discard(writer)
            for end in (writer, to_writer):
                end.close()

    async def _up(
        self, reader: asyncio.StreamReader, to: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if b"SUBSCRIBE" in data and back not in self._links:
                    self._links.add(back)
                    self.links_made += 1
                    # A link that is made while another is silent is a new one, and well.
                    self._silent = False
                to.write(data)

    async def _down(self, reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if not (self._silent and to in self._links):
                    to.write(data)


@contextmanager
def proxy(redis_url: str) -> Iterator[Proxy]:
    """A running relay."""
    one = Proxy(redis_url)
    try:
        yield one
    finally:
        one.stop()
