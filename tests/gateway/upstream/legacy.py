"""An app that nobody may touch, on raw sockets: it answers as a test says, to the byte, and remembers all
requests.

`tasks` are what its status endpoint `/api/jobs/{id}` says; any other answer is a function's.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

_AT_ONCE = 65_536
"""An answer that the kernel takes without waiting for anybody is smaller than this."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came: first line and headers to the byte, the body without its chunked coding."""

    head: bytes
    body: bytes
    at: float

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode("latin-1")

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    def header(self, name: str) -> str | None:
        """That header's value; of several the last."""
        return dict(self.headers).get(name)


@dataclass(frozen=True, slots=True)
class Reply:
    """The bytes of an answer; an Event among them is waited for. `then` closes, or resets, the connection."""

    pieces: Sequence[bytes | threading.Event]
    then: str = "keep"


def reply(
    body: Any = b"",
    status: int = 200,
    headers: Sequence[tuple[str, str]] = (),
    *,
    type_: str = "application/json",
) -> Reply:
    """An answer with a length. What isn't bytes becomes JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Said", f"Content-Type: {type_}", f"Content-Length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return Reply(["\r\n".join([*lines, "", ""]).encode("latin-1") + data])


Answering = Callable[[Asked], Reply]


@dataclass
class Legacy:
    """A running app. `answer` may be exchanged; without one, `tasks` tells."""

    answer: Answering | None = None
    tasks: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    """Requests under way at the same time, now and at most."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._connections: set[socket.socket] = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def polls(self) -> list[Asked]:
        """What was asked by pollers: old clients don't say that they are a bridge."""
        return [one for one in tuple(self.asked) if (one.header("user-agent") or "").startswith("bridge/")]

    def stop(self) -> None:
        """Be gone: connections are refused from now on."""
        self._stopped.set()
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()

    def cut(self) -> None:
        """Close all connections."""
        with self._lock:
            for one in self._connections:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def back(self) -> None:
        """Listen again, on the same port."""
        self._stopped.clear()
        self.listener = socket.create_server(self.address)
        threading.Thread(target=self._accept, daemon=True).start()

    def said(self, asked: Asked) -> Reply:
        """What the status endpoint says of the task in the path."""
        task = self.tasks.get(asked.target.partition("?")[0].rpartition("/")[2])
        return reply({"error": "not found"}, 404) if task is None else reply(task)

    def _accept(self) -> None:
        listener = self.listener
        while not self._stopped.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(30)
            rest = b""
            while True:
                asked, rest = _read(connection, rest)
                if asked is None:
                    break
                with self._lock:
                    self.asked.append(asked)
                    self.open += 1
                    self.most_open = max(self.most_open, self.open)
                with ExitStack() as under_way:
                    under_way.callback(self._over)
                    kept = self._send(connection, (self.answer or self.said)(asked), under_way)
                if not kept or asked.header("connection") == "close":
                    break
        with self._lock:
            self._connections.discard(connection)

    def _over(self) -> None:
        with self._lock:
            self.open -= 1

    def _send(self, connection: socket.socket, answer: Reply, under_way: ExitStack) -> bool:
        for number, piece in enumerate(answer.pieces, 1):
            if isinstance(piece, bytes):
                if number == len(answer.pieces) and len(piece) < _AT_ONCE:
                    under_way.close()  # who has the whole answer may ask again before this thread goes on
                connection.sendall(piece)
            else:
                while not (piece.wait(0.02) or self._stopped.is_set()):
                    connection.setblocking(False)
                    try:
                        if connection.recv(1, socket.MSG_PEEK) == b"":
                            return False
                    except BlockingIOError:
                        pass
                    finally:
                        connection.settimeout(30)
        return answer.then == "keep"


def _read(connection: socket.socket, data: bytes) -> tuple[Asked | None, bytes]:
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None, b""
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    asked = Asked(head, b"", monotonic())
    length = int(asked.header("content-length") or 0)
    if asked.header("transfer-encoding") == "chunked":
        body, rest = _read_chunks(connection, rest)
    else:
        while len(rest) < length:
            rest += connection.recv(65536)
        body, rest = rest[:length], rest[length:]
    return Asked(head, body, asked.at), rest


def _read_chunks(connection: socket.socket, data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        while b"\r\n" not in data:
            data += connection.recv(65536)
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        while len(data) < length + 2:
            data += connection.recv(65536)
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            return body, data


@contextmanager
def legacy(answer: Answering | None = None, **tasks: Any) -> Iterator[Legacy]:
    """A running app."""
    one = Legacy(answer, dict(tasks))
    try:
        yield one
    finally:
        one.stop()
