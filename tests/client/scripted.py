"""A gateway that says what a test wrote down: real sockets, scripted bytes, drops and statuses."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from bridge import sse
from bridge.codec import encode
from bridge.events import Event, Position


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. An Event among the pieces is waited for; `then` says how the connection goes on. One
    that is `mute` is not even begun.
    """

    pieces: Sequence[bytes | threading.Event] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})
    then: Literal["close", "reset", "hold"] = "close"
    chunked: bool = False
    mute: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


class Gateway:
    """Answers the n-th request with the n-th answer; more requests than answers get a 418."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.requests: list[Request] = []
        self._answers = list(answers)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        """Accept until stopped; a thread per connection."""
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()
        self._listener.close()

    def stop(self) -> None:
        """Let go of every connection."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(0.1)
            try:
                head = self._read_head(connection)
                if head is None:
                    return
                with self._lock:
                    self.requests.append(head)
                    answer = self._answers.pop(0) if self._answers else Answer(status=418)
                self._send(connection, answer)
            except OSError:
                pass  # the client went away, which tests do on purpose

    def _read_head(self, connection: socket.socket) -> Request | None:
        data = b""
        while b"\r\n\r\n" not in data and not self._stop.is_set():
            try:
                more = connection.recv(65536)
            except TimeoutError:
                continue
            if not more:
                return None
            data += more
        lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        pairs = (line.partition(":") for line in lines[1:])
        return Request(method, path, {name.lower(): value.strip() for name, _, value in pairs})

    def _send(self, connection: socket.socket, answer: Answer) -> None:
        if answer.mute:
            self._hold(connection)
            return
        head = f"HTTP/1.1 {answer.status} Scripted\r\nConnection: close\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        if answer.chunked:
            head += "Transfer-Encoding: chunked\r\n"
        connection.sendall(head.encode() + b"\r\n")
        for piece in answer.pieces:
            if isinstance(piece, threading.Event):
                while not piece.wait(0.05) and not self._stop.is_set():
                    pass
            else:
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.chunked else piece)
        if answer.then == "reset":
            # A linger of zero makes close send RST instead of FIN.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if answer.then == "hold":
            self._hold(connection)

    def _hold(self, connection: socket.socket) -> None:
        while not self._stop.is_set():
            try:
                if not connection.recv(1024):
                    return
            except TimeoutError:
                continue


@contextmanager
def gateway(*answers: Answer) -> Iterator[Gateway]:
    """A running scripted gateway."""
    one = Gateway(answers)
    thread = threading.Thread(target=one.run, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        one.stop()
        thread.join(10)


def wire(position: str, event: Event) -> bytes:
    """An event as the gateway's stream carries it."""
    return sse.frame(encode(event), event=event.kind, id=str(Position.parse(position)))


def plain(body: str, status: int = 200, **headers: str) -> Answer:
    """An answer that is JSON and no stream."""
    return Answer([body.encode()], status, {"Content-Type": "application/json", **headers})
