"""A client on a bare socket: it sees every byte, and reads only when a test tells it to."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Protocol, Self

from bridge import sse
from bridge.codec import decode
from bridge.events import Event, Position
from bridge.sse import Frame
from bridge.view import View
from tests.waiting import DEADLINE_SECONDS

_RECEIVE = 65_536


class Gateway(Protocol):
    """Where a viewer connects to."""

    @property
    def address(self) -> tuple[str, int]: ...


class Viewer:
    """One request. `body` holds the bytes after the headers, with the chunked coding taken away; `sends`
    the sizes of the chunks, which are what the gateway sent at a time.
    """

    def __init__(
        self,
        gateway: Gateway,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        receive_buffer: int | None = None,
        raw: bytes | None = None,
    ) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(DEADLINE_SECONDS)
        self.socket.connect(gateway.address)
        named = [f"{name}: {value}" for name, value in (headers or {}).items()]
        request = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", *named, "", ""])
        self.socket.sendall(request.encode() if raw is None else raw)
        self.received = b""
        self.body = b""
        self.sends: list[int] = []
        self.frames: list[Frame] = []
        self.status = 0
        self.headers: dict[str, str] = {}
        self.closed = False
        self._decoder = sse.Decoder()
        self._rest = b""
        self._chunked = False
        self._method = method

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def head(self) -> Self:
        """Read until the headers are there."""
        while not self.status:
            assert self._receive(), f"closed before the headers: {self.received!r}"
        return self

    def until(self, true: Callable[[Self], bool]) -> Self:
        """Read until something is true, which must be before the end."""
        while not true(self):
            assert self._receive(), f"ended too early; got {self.body[-2000:]!r}"
        return self

    def to_end(self) -> Self:
        """Read until the body ends."""
        while not self.closed:
            self._receive()
        return self

    def text_is(self, text: str) -> Self:
        """Read until the main text is this."""
        return self.until(lambda viewer: viewer.view.text == text)

    @property
    def events(self) -> list[Event]:
        return [decode(frame.event, frame.data) for frame in self.frames]

    @property
    def ids(self) -> list[Position]:
        return [Position.parse(frame.id) for frame in self.frames]

    @property
    def view(self) -> View:
        """The fold of what came so far."""
        view = View("job-1")
        for position, event in zip(self.ids, self.events, strict=True):
            view.apply(position, event)
        return view

    def _receive(self) -> bool:
        if self.closed:
            return False
        try:
            data = self.socket.recv(_RECEIVE)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
        self.received += data
        self._rest += data
        if not self.status:
            head, found, rest = self._rest.partition(b"\r\n\r\n")
            if not found:
                return not self.closed
            self._rest = rest
            self._parse_head(head.decode("latin-1"))
        self._take_body()
        return True

    def _parse_head(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        self._chunked = self.headers.get("transfer-encoding") == "chunked"
        if self._method == "HEAD" or self.status in (204, 304):
            self.closed = True

    def _take_body(self) -> None:
        if not self._chunked:
            body, self._rest = self._rest, b""
            self._add(body)
            if len(self.body) >= int(self.headers.get("content-length", 1 << 60)):
                self.closed = True
            return
        while True:
            size, found, rest = self._rest.partition(b"\r\n")
            if not found or len(rest) < (length := int(size, 16)) + 2:
                return
            if length == 0:
                self.closed = True
                return
            self.sends.append(length)
            self._add(rest[:length])
            self._rest = rest[length + 2 :]

    def _add(self, body: bytes) -> None:
        self.body += body
        self.frames += self._decoder.feed(body)


def watch(gateway: Gateway, task_id: str = "job-1", after: str | None = None, **more: object) -> Viewer:
    """Open a stream."""
    headers = {"Accept": "text/event-stream"}
    if after is not None:
        headers["Last-Event-ID"] = after
    return Viewer(gateway, f"/tasks/{task_id}/events", headers=headers, **more)  # type: ignore[arg-type]
