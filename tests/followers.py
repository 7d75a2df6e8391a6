"""Followers by the thousand in one process: raw sockets, and what a correct client makes of their bytes.

A follower may be told to break off: its connection is then cut after so many bytes, most often in the midst
of an event, and it comes back with the id of the last event that it had whole. One that `returns` comes back
by itself whenever its stream is closed before the end, as EventSource does: after the `retry:` that it was
told, times `haste`. It remembers all that a correct server would never do in `wrong`.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import httptools

from bridge.codec import decode
from bridge.events import START, UNKNOWN_TASK_END, Event, Position, Reset
from bridge.sse import Decoder, Frame
from bridge.view import View

DEFAULT_RETRY_SECONDS = 1.0


class Follower:
    """One reader of one task: its view, and all that went wrong. `breaks` are bytes per connection.

    `gateway` is a URL, or a function that chooses one for each connection. Resets are events like others;
    `resets` holds their reasons. `ends` counts them per epoch.
    """

    def __init__(
        self,
        gateway: str | Callable[[], str],
        task_id: str,
        breaks: Sequence[int] = (),
        *,
        returns: bool = False,
        haste: float = 1.0,
        receive_buffer: int | None = None,
    ) -> None:
        self.view = View(task_id)
        self.connections = 0
        self.ends: Counter[int] = Counter()
        self.resets: list[str] = []
        self.statuses: list[int] = []
        self.wrong: list[str] = []
        self.done = asyncio.Event()
        self.retry_seconds = DEFAULT_RETRY_SECONDS
        self.lost_at: list[float] = []
        """When connections were closed before the end, in monotonic seconds."""
        self.on_event: Callable[[Event], None] | None = None
        self.slowly: Callable[[asyncio.Transport, int], None] | None = None
        """Called with each connection when it is made (0), then with the size of each piece read."""
        self._gateway = gateway if callable(gateway) else lambda: gateway
        self._breaks = list(breaks)
        self._returns = returns
        self._haste = haste
        self._receive_buffer = receive_buffer
        self._joining: set[asyncio.Task[None]] = set()
        self._connection: Connection | None = None
        self._leaving = False

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def away(self) -> bool:
        """Whether it has left, and waits for the next `join`."""
        return self._leaving and self._connection is None

    async def join(self) -> None:
        """Open a connection, from the position that it has."""
        self.connections += 1
        self._leaving = False
        self.done.clear()
        limit = self._breaks.pop(0) if self._breaks else None
        address = urlsplit(self._gateway())
        end = socket.socket()
        end.setblocking(False)
        if self._receive_buffer is not None:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(end, (address.hostname, address.port or 80))
            await loop.create_connection(lambda: Connection(self, limit), sock=end)
        except OSError:
            end.close()
            if not self._returns:
                raise
            self._come_back(self.retry_seconds * self._haste)
        except asyncio.CancelledError:
            end.close()
            raise

    def leave(self) -> None:
        """Vanish: reset the connection, and don't come back before the next `join`."""
        self._leaving = True
        for task in self._joining:
            task.cancel()
        if self._connection is not None:
            self._connection.abort()

    def break_off(self) -> None:
        """Reset the connection, as a bad network does; one that `returns` comes back."""
        if self._connection is not None:
            self._connection.abort()

    def request(self) -> bytes:
        """The request for the rest of the stream."""
        position = self.view.position
        resume = f"Last-Event-ID: {position}\r\n" if position != START else ""
        path = f"/tasks/{self.view.task_id}/events"
        return f"GET {path} HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n{resume}\r\n".encode()

    def take(self, frame: Frame) -> None:
        """Fold one event in. Nothing may come twice, nothing late, nothing anew."""
        position, event = Position.parse(frame.id), decode(frame.event, frame.data)
        known = self.view.position
        if isinstance(event, Reset):
            self.resets.append(event.reason)
            if position.epoch == known.epoch and 0 < position.seq <= known.seq:
                self.wrong.append(f"reset {position} after {known}")
        elif position != UNKNOWN_TASK_END:
            if position <= known:
                self.wrong.append(f"{event.kind} {position} after {known}")
            if known != START and position.epoch != known.epoch:
                self.wrong.append(f"{event.kind} of another epoch, {position} after {known}")
            if self.view.ended:
                self.wrong.append(f"{event.kind} {position} after the end")
        self.view.apply(position, event)
        if event.kind == "end":
            self.ends[position.epoch] += 1
        if self.on_event is not None:
            self.on_event(event)

    def opened(self, connection: Connection) -> None:
        """The connection is made."""
        self._connection = connection

    def left(self, *, broke_off: bool) -> None:
        """The connection is closed: finished, or to be resumed."""
        self._connection = None
        if self.view.ended or self._leaving or (self.statuses and self.statuses[-1] == 204):
            self.done.set()
            return
        self.lost_at.append(time.monotonic())
        if broke_off:
            self._come_back(0)
        elif self._returns:
            self._come_back(self.retry_seconds * self._haste)
        else:
            self.wrong.append(f"closed before the end, at {self.view.position}")
            self.done.set()

    def _come_back(self, seconds: float) -> None:
        async def later() -> None:
            await asyncio.sleep(seconds)
            await self.join()

        if not self._leaving:
            task = asyncio.ensure_future(later())
            self._joining.add(task)
            task.add_done_callback(self._joining.discard)


class Connection(asyncio.Protocol):
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
        self._follower.opened(self)
        if self._follower.slowly is not None:
            self._follower.slowly(transport, 0)
        transport.write(self._follower.request())

    def abort(self) -> None:
        """Reset it."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if self._follower.slowly is not None:
            self._follower.slowly(self._transport, len(data))

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
        if self._decoder.retry_ms is not None:
            self._follower.retry_seconds = self._decoder.retry_ms / 1000
        if self._broke_off:
            self._transport.abort()

    def on_message_complete(self) -> None:
        """A call of the parser's: the stream was closed in order."""
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._follower.left(broke_off=self._broke_off)
