"""Followers by the thousand in one process: raw sockets, and what a correct client makes of their bytes.

A follower may be told to break off: its connection is then cut after so many bytes, most often in the midst
of an event, and it comes back with the id of the last event that it had whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit

import httptools

from bridge.events import Position, decode
from bridge.sse import Decoder, Frame
from bridge.view import View


class Follower:
    """One reader of one task: its view, and all that went wrong. `breaks` are bytes per connection."""

    def __init__(self, gateway: str, task_id: str, breaks: Sequence[int] = ()) -> None:
        self.view = View(task_id)
        self.connections = 0
        self.ends = 0
        self.statuses: list[int] = []
        self.wrong: list[str] = []
        self.done = asyncio.Event()
        address = urlsplit(gateway)
        self._host, self._port = address.hostname or "", address.port or 80
        self._breaks = list(breaks)
        self._joining: set[asyncio.Task[None]] = set()

    async def join(self) -> None:
        """Open a connection, from the position that it has."""
        self.connections += 1
        limit = self._breaks.pop(0) if self._breaks else None
        await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self, limit), self._host, self._port
        )

    def request(self) -> bytes:
        """The request for the rest of the stream."""
        position = self.view.position
        resume = f"Last-Event-ID: {position}\r\n" if position.seq else ""
        path = f"/tasks/{self.view.task_id}/events"
        return f"GET {path} HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n{resume}\r\n".encode()

    def take(self, frame: Frame) -> None:
        """Fold one event in. Nothing may come twice, nothing late, nothing anew."""
        position, event = Position.parse(frame.id), decode(frame.event, frame.data)
        if position <= self.view.position:
            self.wrong.append(f"{frame.event} {position} after {self.view.position}")
        if frame.event == "reset" or self.ends:
            self.wrong.append(f"unexpected {frame.event} {position}")
        self.view.apply(position, event)
        self.ends += frame.event == "end"

    def left(self, *, broke_off: bool) -> None:
        """The connection is closed: finished, or to be resumed."""
        if broke_off and not self.ends:
            task = asyncio.ensure_future(self.join())
            self._joining.add(task)
            task.add_done_callback(self._joining.discard)
            return
        if not self.ends:
            self.wrong.append(f"closed before the end, at {self.view.position}")
        self.done.set()


class _Connection(asyncio.Protocol):
    """One response: status, then a chunked body that is an event stream."""

    def __init__(self, follower: Follower, limit: int | None) -> None:
        self._follower = follower
        self._limit = limit
        self._broke_off = False
        self._parser = httptools.HttpResponseParser(self)
        self._decoder = Decoder()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._follower.request())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        """A call of the parser's."""
        self._follower.statuses.append(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        """A call of the parser's: a piece of the stream."""
        if self._broke_off:
            return
        if self._limit is not None:
            self._broke_off = len(body) >= self._limit
            body = body[: self._limit]
            self._limit -= len(body)
        for frame in self._decoder.feed(body):
            self._follower.take(frame)
        if self._broke_off:
            self._transport.abort()

    def on_message_complete(self) -> None:
        """A call of the parser's: the stream was closed in order."""
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._follower.left(broke_off=self._broke_off)
