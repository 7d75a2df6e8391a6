"""What the gateway needs of a connection beyond what uvicorn's protocol gives.

- `ABORT` in the scope cuts the connection at once. uvicorn itself closes in order, which waits for the client
  to take what is buffered: one that takes nothing would be kept for ever, with its buffer.
- Requests that are no HTTP are refused in the shape of all our errors.
- Nobody fills the memory with a request line or headers that never end.
"""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bridge.gateway.answers import error_body
from bridge.gateway.stream import ABORT

MAX_HEAD_BYTES: Final = 65_536
"""The most that a request line and its headers may take together. Proxies allow far less."""


class GatewayProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 over httptools, with the three additions above."""

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
        self.scope["extensions"] = {ABORT: self.transport.abort}  # type: ignore[dict-item] # ours, no dict

    def on_headers_complete(self) -> None:
        """The request is known; what follows is its body, or the next request."""
        self._in_head = False
        self._head_bytes = 0
        super().on_headers_complete()

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
