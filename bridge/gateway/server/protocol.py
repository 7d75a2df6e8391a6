"""What the gateway takes from a connection, and what it refuses. What it gives to one is in `peer.py`.

- A poll that can be answered from memory is (`quick.py`), as soon as it is read: there is no cycle of
  uvicorn's for it, and no task. Only one of each read, so that who sends many at once waits as everybody
  does, and only where nothing is under way on the connection and its client takes what it was sent.
- Requests that are no HTTP are refused in the shape of all our errors.
- Nobody fills the memory with a head or a body that never ends, nor holds a connection by sending slowly. A
  request's head has `request_seconds`, from its first byte or the connection's beginning, and then its body.
  Only a body that comes with the key for reports may be as large and take as long as it likes, until it is
  answered; whoever reads it sees to the rest (`ingest.py`).
  The clock runs only while something of a request is missing: streams and long polls have none, and what is
  between two requests is uvicorn's (keep-alive). Nor does it count when we are the ones who don't read.
- A connection over the limits is reset at once. At this moment nobody knows what it is for, and of all
  answers only none makes EventSource try again.
- A refusal is written only where the client waits for it: not into an answer that has begun, and not to one
  who said nothing, since browsers open connections in advance. Then it is read, and forgotten, for a moment:
  closing at once would reset the connection, and the client, still sending, would never see the answer.

What is a request, and where it ends, is httptools' (llhttp's) strict reading; `tests/hardening/` shows it. It
leaves to us: trailers, a second Host, and what follows a request to upgrade.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

from bridge.gateway.answers import error_body
from bridge.gateway.auth.reports import ReportKeys
from bridge.gateway.limits import Connections
from bridge.gateway.server.peer import PeerProtocol
from bridge.gateway.server.quick import Quick
from bridge.settings import Settings

_LAST_WORDS_SECONDS: Final = 2.0
_LAST_BYTES: Final = 1_048_576
"""So long a client that was refused has to take the answer, and so much it may still send."""


class GatewayProtocol(PeerProtocol):
    """The protocol of `bridge serve`, with the rules above."""

    limit: Connections
    report_keys: ReportKeys
    quick: Quick | None
    """All are set by `protocol_with`, the same for all connections of a server."""

    __slots__ = (
        "_answered_at_once",
        "_begun",
        "_body_bytes",
        "_clock",
        "_clock_part",
        "_is_report",
        "_part",
        "_part_bytes",
        "_parts",
        "_place",
        "_refused",
        "_was_quick",
        "last_answers",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Called by uvicorn's server, with what its protocols take."""
        super().__init__(*args, **kwargs)
        self.last_answers = False
        """Set when the server goes away: each connection is closed after the answer under way, or the next
        one. A client that is told to come back would else come back over the same one, to the same gateway.
        """
        self._part: Literal["head", "body", None] = "head"
        """Of which part of a request something is missing; None between two requests."""
        self._parts = 0
        """Changes whenever `_part` does, also when it is the same again."""
        self._part_bytes = 0
        self._body_bytes = 0
        self._is_report = False
        self._begun = False
        """Whether the request has, with more than line ends."""
        self._clock: asyncio.TimerHandle | None = None
        self._clock_part = 0
        self._refused = False
        self._place: str | None = None
        self._answered_at_once = False
        """The request that is being read."""
        self._was_quick = False
        """Whether there was such a one in what is being read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Somebody connected."""
        super().connection_made(transport)
        self._place = self.limit.enter(self.client[0] if self.client is not None else "")
        if self._place is None:
            self._refused = True
            self.cut()
        else:
            self._set_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for whatever reason."""
        self._stop_clock()
        if self._place is not None:
            self.limit.leave(self._place)
            self._place = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless this connection was refused."""
        if self._refused:
            self._body_bytes += len(data)
            if self._body_bytes > _LAST_BYTES:
                self.cut()
            return
        before, parts = self._part, self._parts
        self._part_bytes += len(data)
        self._was_quick = False
        super().data_received(data)
        if self._over():
            return
        if before is None and self._parts == parts:
            self._enter("head")  # line ends, which may stand before a request
        if self._free:
            self._part_bytes = 0
        most = 2 * self.settings.max_body_bytes + self.settings.max_head_bytes
        if self._part == "head" and self._head_is_large(self._part_bytes):
            return
        if self._part == "body" and self._part_bytes > most:
            # Trailers, and what chunks may carry besides the body, are no part of it for the parser.
            self._refuse(413, "The request's body is too large.", "too_large")
            return
        self._set_clock()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        if self._part is None:
            self._enter("head")
        self._begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or a trailer. Those are dropped: uvicorn would add them to the headers, also those that
        proxies in front set or took away (RFC 9110, 6.5.1).
        """
        if self._part == "head":
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request is known; what follows is its body, or the next request."""
        if self._refused:
            return  # what came together with the reason for that
        if sum(name == b"host" for name, _ in self.headers) > 1:
            # RFC 9112, 3.2: "A server MUST respond with a 400 (Bad Request) status code […] to any request
            # message that contains more than one Host header field line".
            self._refuse(400, "The request has more than one Host.", "bad_request")
            return
        if self._head_is_large(
            len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        ):
            return
        if self._answer_at_once():
            return
        self._is_report = self.parser.get_method() == b"POST" and self.report_keys.admit(self.headers)
        super().on_headers_complete()
        self._enter("body")
        if self.last_answers:
            self.close_after_answer()

    def _answer_at_once(self) -> bool:
        """Whether the request that has just been read is a poll that is answered with that."""
        if self.quick is None or self._was_quick or self._answering or self.last_answers:
            return False
        parser = self.parser
        if (
            parser.get_method() != b"GET"
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or parser.should_upgrade()
            or self.flow.write_paused
            or self.transport.is_closing()
        ):
            return False
        peer = self.client[0] if self.client is not None else ""
        answer = self.quick.answer(self.url, self.headers, peer, self.server_state.default_headers)
        if answer is None:
            return False
        # Not `writelines`: in some Pythons (gh-127655) that never says that the client takes no more.
        self.transport.write(b"".join(answer))
        self._answered_at_once = self._was_quick = True
        return True

    def _head_is_large(self, size: int) -> bool:
        if size > self.settings.max_head_bytes:
            self._refuse(431, "The request's line and headers are too large.", "too_large")
        return self._refused

    def on_body(self, body: bytes) -> None:
        """A part of a request's body. Only reports have large ones, and most requests have none."""
        if self._free:
            super().on_body(body)
            return
        self._body_bytes += len(body)
        if self._refused:
            return
        if self._body_bytes > self.settings.max_body_bytes:
            self._refuse(413, "The request's body is too large.", "too_large")
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """All of a request has come."""
        self._enter(None)
        self._begun = False
        if self._answered_at_once:
            self._answered_at_once = False
            self.on_response_complete()
        elif not self._refused:
            super().on_message_complete()

    def _over(self) -> bool:
        return self._refused or self.transport.is_closing()

    def _enter(self, part: Literal["head", "body", None]) -> None:
        self._part = part
        self._parts += 1
        self._part_bytes = self._body_bytes = 0

    def _set_clock(self) -> None:
        """Let the clock run for what is missing now, from the moment that something was."""
        if self._clock is not None and self._clock_part == self._parts:
            return
        self._stop_clock()
        if self._part is not None:
            self._clock_part = self._parts
            self._clock = self.loop.call_later(self.settings.request_seconds, self._overdue)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _overdue(self) -> None:
        self._clock = None
        waits = self.flow.read_paused or self._free or (self._part == "head" and self._answering)
        if self.transport.is_closing():
            return
        if waits:
            self._set_clock()  # it is not the client's turn
        elif not self._begun:
            self.transport.close()
        else:
            self._refuse(408, "The request took too long to arrive.", "too_slow")

    @property
    def _free(self) -> bool:
        """Whether a report's body is being read."""
        return self._part == "body" and self._is_report and self._answering and not self._refused

    def _unsupported_upgrade_warning(self) -> None:
        """To a request to upgrade the answer is plain HTTP. The parser reads nothing of what follows it, so a
        proxy that used this connection again would wait in vain.
        """
        self.close_after_answer()

    def send_400_response(self, msg: str) -> None:
        """What was received is no HTTP, or none that the parser takes."""
        self._refuse(400, msg, "bad_request")

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer in place of the application, and read nothing more of this connection."""
        if self._over():
            return
        self._refused = True
        self._body_bytes = 0
        self._stop_clock()
        answered = self._part == "body" and not self._answering
        if answered or (self._answering and (self.cycle.response_started or self.pipeline)):
            self.cut()
            return
        if self._answering:
            self._say_gone()
        self._unset_keepalive_if_required()
        body = error_body(message, code)
        head = (
            f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncache-control: no-store\r\n"
            f"x-content-type-options: nosniff\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.write_eof()
        self.flow.resume_reading()
        self._clock = self.loop.call_later(_LAST_WORDS_SECONDS, self.cut)


def protocol_with(
    settings: Settings, connections: Connections, quick: Quick | None = None
) -> type[GatewayProtocol]:
    """The protocol for one server; uvicorn makes its instances itself."""
    members: dict[str, Any] = {
        "settings": settings,
        "limit": connections,
        "report_keys": ReportKeys(settings),
        "quick": quick,
    }
    return type("GatewayProtocol", (GatewayProtocol,), members)
