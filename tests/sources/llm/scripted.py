"""A provider that says what a test wrote down: a real socket, scripted bytes, drops, and who hung up."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from bridge.events import End, Event
from bridge.sources.llm.providers import Provider
from bridge.sources.llm.request import Request
from tests.sources.llm.recordings import texts_of

STREAM = {"Content-Type": "text/event-stream"}
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. An Event among the pieces is waited for; `then` says how the connection goes on."""

    pieces: Sequence[bytes | asyncio.Event] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: STREAM)
    then: Literal["close", "reset", "hold"] = "close"
    mute: bool = False
    """Not even a head."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked. Header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


class Server:
    """Answers the n-th request with the n-th answer, and from then on with the last."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.asked: list[Asked] = []
        self.taken = 0
        """Connections, whether anything was asked or not."""
        self.hung_up = asyncio.Event()
        """The client closed its connection before the answer was sent to its end."""
        self.url = ""
        self._answers = list(answers)
        self._serving: list[asyncio.Future[None]] = []

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.append(asyncio.ensure_future(self._serve(reader, writer)))

    async def stop(self) -> None:
        """Let go of every connection."""
        for each in self._serving:
            each.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            self.hung_up.set()  # which tests do on purpose
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await _read(reader))
        answer = self._answers[min(len(self.asked), len(self._answers)) - 1]
        sending = asyncio.ensure_future(_send(writer, answer))
        watching = asyncio.ensure_future(reader.read())
        try:
            await asyncio.wait([sending, watching], return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                self.hung_up.set()
        finally:
            for each in (sending, watching):
                each.cancel()
            await asyncio.gather(sending, watching, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Asked:
    first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    pairs = (line.partition(":") for line in rest)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers["content-length"]))
    return Asked(first.split(" ")[1], headers, json.loads(body))


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    if not answer.mute:
        head = f"HTTP/1.1 {answer.status} Scripted\r\nConnection: close\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        writer.write(head.encode() + b"\r\n")
    for piece in answer.pieces:
        if isinstance(piece, asyncio.Event):
            await piece.wait()
        else:
            writer.write(piece)
            await writer.drain()
    if answer.mute or answer.then == "hold":
        await asyncio.Event().wait()
    if answer.then == "reset":
        # A linger of zero makes close send RST instead of FIN.
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@asynccontextmanager
async def provider(*answers: Answer) -> AsyncIterator[Server]:
    """A running scripted provider."""
    one = Server(answers)
    server = await asyncio.start_server(one.accept, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        server.close()
        await one.stop()


async def ask(asked: Provider, request: Request | str = "Hi") -> tuple[dict[str, str], End, list[Event]]:
    """The texts, the end and all events of one answer."""
    request = Request(request) if isinstance(request, str) else request
    events = [event async for event in asked.events(request)]
    end = events[-1]
    assert isinstance(end, End)
    assert not any(isinstance(event, End) for event in events[:-1])
    return texts_of(events), end, events
