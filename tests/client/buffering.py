"""A proxy that keeps what a server says until it has said all of it: what many a company's network does."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STEP_SECONDS = 0.05


class BufferingProxy:
    """Relays one request per connection to `target`. An answer goes on when the server has closed; with
    `passes_head`, its head does so at once.
    """

    def __init__(self, target: tuple[str, int], *, passes_head: bool) -> None:
        self.paths: list[str] = []
        """What was asked for, in order."""
        self._target = target
        self._passes_head = passes_head
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_STEP_SECONDS)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        """Accept until stopped; a thread per connection."""
        with self._listener:
            while not self._stop.is_set():
                try:
                    client, _ = self._listener.accept()
                except TimeoutError:
                    continue
                thread = threading.Thread(target=self._relay, args=(client,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def stop(self) -> None:
        """Let go of every connection."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            try:
                head = self._read_head(client)
                self.paths.append(head.split(b" ")[1].decode())
                # So that the end of the answer is the end of the connection.
                server.sendall(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                client.sendall(self._answer(client, server))
            except OSError:
                pass  # one of the two has left

    def _read_head(self, client: socket.socket) -> bytes:
        """A request's head, without a `Connection` of its own; there are no bodies."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            more = client.recv(65536)
            if not more:
                raise ConnectionResetError
            head += more
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        return b"\r\n".join(lines)

    def _answer(self, client: socket.socket, server: socket.socket) -> bytes:
        """What the server says until it closes; what of it wasn't sent yet."""
        kept = b""
        head_due = self._passes_head
        while not self._stop.is_set():
            ready, _, _ = select.select([client, server], [], [], _STEP_SECONDS)
            if client in ready:
                raise ConnectionResetError  # it has nothing more to ask: it left
            if server in ready:
                more = server.recv(65536)
                if not more:
                    return kept
                kept += more
                head, end, rest = kept.partition(b"\r\n\r\n")
                if head_due and end:
                    client.sendall(head + end)
                    kept, head_due = rest, False
        raise ConnectionAbortedError


@contextmanager
def buffering(target: tuple[str, int], *, passes_head: bool = False) -> Iterator[BufferingProxy]:
    """A running proxy before `target`."""
    proxy = BufferingProxy(target, passes_head=passes_head)
    thread = threading.Thread(target=proxy.run, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join(10)
