"""What the gateway needs of a connection beyond what uvicorn's protocol gives.

- `UNSENT` in the scope tells how much waits for the client, in the kernel too. Who never reads, and who is
  gone without a word, gives himself away by it: it doesn't shrink.
- `ABORT` in the scope cuts the connection at once. uvicorn itself closes in order, which waits for the client
  to take what is buffered: one that takes nothing would be kept for ever, with its buffer. That goes, too,
  for one that doesn't take the rest of its answer.
- Requests that are no HTTP are refused in the shape of all our errors.
- Nobody fills the memory with a request line or headers that never end.
"""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bridge.gateway.answers import error_body
from bridge.gateway.stream import ABORT, UNSENT

MAX_HEAD_BYTES: Final = 65_536
"""The most that a request line and its headers may take together. Proxies allow far less."""

_INT: Final = struct.Struct("i")


if sys.platform == "linux":
    import fcntl
    import termios

    def _kernel_holds(fd: int) -> int:
        """How many bytes of a socket's are not acknowledged by its peer (SIOCOUTQ, tcp(7))."""
        held: int = _INT.unpack(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(_INT.size)))[0]
        return held
else:

    def _kernel_holds(fd: int) -> int:
        """Not known here."""
        return 0


class GatewayProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 over httptools, with the additions above."""

    patience_seconds = 60.0
    """A client that takes nothing of the rest of an answer for so long is disconnected."""

    last_answers = False
    """Set when the server goes away: each connection is closed after the answer under way, or the next one.
    A client that is told to come back would else come back over the same connection, to the same gateway.
    """

    _head_bytes = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless the head grew too large."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, "The request's line and headers are too large.", "too_large")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head = True
        self.scope["extensions"] = {
            ABORT: self.cut,  # type: ignore[dict-item] # ours, no dict
            UNSENT: self.unsent,  # type: ignore[dict-item] # likewise
        }

    def on_headers_complete(self) -> None:
        """The request is known; what follows is its body, or the next request."""
        self._in_head = False
        self._head_bytes = 0
        super().on_headers_complete()
        if self.last_answers:
            self.close_after_answer()

    def close_after_answer(self) -> None:
        """Close the connection when the answer that is under way, if any, was given."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """The answer was given whole; perhaps the connection is closed now, which waits for the client."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._wait_for_client(self.unsent())

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked for in a while: close, once the client has taken the last answer."""
        self._wait_for_client(self.unsent())

    def _wait_for_client(self, left: int) -> None:
        if left:
            self.timeout_keep_alive_task = self.loop.call_later(self.patience_seconds, self._look, left)
        else:
            super().timeout_keep_alive_handler()

    def _look(self, before: int) -> None:
        """Some time later: the client has taken all, or some, or nothing."""
        left = self.unsent()
        if left >= before:
            self.cut()
        else:
            self._wait_for_client(left)

    def unsent(self) -> int:
        """How many bytes wait for the client: here, in the kernel, and on their way to it."""
        waiting: int = self.transport.get_write_buffer_size()
        try:
            end = self.transport.get_extra_info("socket")
            return waiting + (_kernel_holds(end.fileno()) if end is not None else 0)
        except (OSError, ValueError):
            return waiting  # the socket is closed, and its number gone

    def cut(self) -> None:
        """Reset the connection. A mere close would leave what waits in the kernel, for minutes."""
        end = self.transport.get_extra_info("socket")
        with suppress(OSError, ValueError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """What was received is no HTTP, or none that the parser takes."""
        self._refuse(400, msg, "bad_request")

    def _refuse(self, status: int, message: str, code: str) -> None:
        body = error_body(message, code)
        head = (
            f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncache-control: no-store\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def protocol_with(patience_seconds: float) -> type[GatewayProtocol]:
    """The protocol with a patience of its own; uvicorn makes its instances itself."""
    return type("GatewayProtocol", (GatewayProtocol,), {"patience_seconds": patience_seconds})
