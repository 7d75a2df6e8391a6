"""What the gateway needs of a connection beyond what uvicorn's protocol gives.

- It is the `Connection` of its requests. `unsent` tells how much waits for the client, in the kernel too. Who
  never reads, and who is gone without a word, gives himself away by it: it doesn't shrink. `cut` resets the
  connection. uvicorn itself closes in order, which waits for the client to take what is buffered: one that
  takes nothing would be kept for ever, with its buffer. That goes, too, for one that doesn't take the rest of
  its answer.
- A poll that can be answered from memory is (`quick.py`), as soon as it is read: there is no cycle of
  uvicorn's for it, and no task. Only one of each read, so that who sends many at once waits as everybody
  does, and only where nothing is under way on the connection and its client takes what it was sent.
- `BARE` in the scope keeps an answer free of headers of ours, where it is somebody else's.
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
import socket
import struct
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bridge.gateway.answers import error_body
from bridge.gateway.auth.reports import ReportKeys
from bridge.gateway.connection import BARE, EXTENSION
from bridge.gateway.flow import Flag, Flow, Pipeline
from bridge.gateway.limits import Connections
from bridge.gateway.quick import Quick
from bridge.settings import Settings

_LAST_WORDS_SECONDS: Final = 2.0
_LAST_BYTES: Final = 1_048_576
"""So long a client that was refused has to take the answer, and so much it may still send."""

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

    settings: Settings
    limit: Connections
    report_keys: ReportKeys
    quick: Quick | None
    """All are set by `protocol_with`, the same for all connections of a server."""

    # Instances share the keys of their dicts up to thirty; without slots each would be a KB larger.
    __slots__ = (
        "_answered",
        "_answered_at_once",
        "_begun",
        "_body_bytes",
        "_clock",
        "_clock_part",
        "_gone",
        "_is_report",
        "_part",
        "_part_bytes",
        "_parts",
        "_place",
        "_refused",
        "_tell",
        "_was_quick",
        "last_answers",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Called by uvicorn's server, with what its protocols take."""
        super().__init__(*args, **kwargs)
        self.pipeline = Pipeline()  # type: ignore[assignment] # a list that does what uvicorn asks of a deque
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
        self._answered: RequestResponseCycle | None = None
        """Of the request that was begun last. What uvicorn calls `cycle` may still wait behind it."""
        self._tell: Callable[[], None] | None = None
        self._gone = False
        self._answered_at_once = False
        """The request that is being read."""
        self._was_quick = False
        """Whether there was such a one in what is being read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Somebody connected."""
        super().connection_made(transport)
        self.flow = Flow(transport)
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
        self._say_gone()
        # Cycle, scope and connection refer to each other, and nobody needs them now. So they go at once, and
        # don't wait for the garbage collector (`server.py`).
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        self._answered = None
        self.cycle = None  # type: ignore[assignment] # as uvicorn has it before the first request
        self.scope = None  # type: ignore[assignment] # likewise

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
        self.scope["extensions"] = {EXTENSION: self}  # type: ignore[dict-item] # ours, no dict

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
        self.cycle.message_event = Flag()  # type: ignore[assignment] # as an event
        if self.settings.upstream:
            # A weak reference: the cycle holds the scope.
            bare = partial(_bare, weakref.ref(self.cycle))
            self.scope["extensions"][BARE] = bare  # type: ignore[assignment] # ours, no dict
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

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin an answer."""
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

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
    def _answering(self) -> bool:
        """Whether an answer is under way, or still to be given."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    @property
    def _free(self) -> bool:
        """Whether a report's body is being read."""
        return self._part == "body" and self._is_report and self._answering and not self._refused

    def _unsupported_upgrade_warning(self) -> None:
        """To a request to upgrade the answer is plain HTTP. The parser reads nothing of what follows it, so a
        proxy that used this connection again would wait in vain.
        """
        self.close_after_answer()

    def close_after_answer(self) -> None:
        """Close the connection when the answer that is under way, if any, was given."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None:
            cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """The answer was given whole; perhaps the connection is closed now, which waits for the client."""
        self._tell = None
        super().on_response_complete()
        if self.transport.is_closing():
            self._wait_for_client(self.unsent())

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked for in a while: close, once the client has taken the last answer."""
        self._wait_for_client(self.unsent())

    def _wait_for_client(self, left: int) -> None:
        if left:
            self.timeout_keep_alive_task = self.loop.call_later(self._patience, self._look, left)
        else:
            super().timeout_keep_alive_handler()

    def _look(self, before: int) -> None:
        """Some time later: the client has taken all, or some, or nothing."""
        left = self.unsent()
        if left >= before:
            self.cut()
        else:
            self._wait_for_client(left)

    @property
    def _patience(self) -> float:
        """A client that takes nothing of the rest of an answer for so long is disconnected."""
        return self.settings.stall_timeout_seconds

    def unsent(self) -> int:
        """How many bytes wait for the client: here, in the kernel, and on their way to it."""
        waiting: int = self.transport.get_write_buffer_size()
        try:
            end = self.transport.get_extra_info("socket")
            return waiting + (_kernel_holds(end.fileno()) if end is not None else 0)
        except (OSError, ValueError):
            return waiting  # the socket is closed, and its number gone

    def push(self, chunk: bytes) -> bool:
        """Write a chunk of the answer under way, unless the client isn't writable."""
        if self.flow.write_paused:
            return False
        self.transport.write(chunk)
        return True

    def when_gone(self, tell: Callable[[], None]) -> bool:
        """Call `tell` when the connection is gone, at once if it is already."""
        self._tell = tell
        if self._gone:
            self._say_gone()
        return True

    def _say_gone(self) -> None:
        """Let the application know that nobody is there. It may go on; whatever it says now goes nowhere."""
        self._gone = True
        if self._answered is not None:
            self._answered.disconnected = True
            self._answered.message_event.set()
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()

    def cut(self) -> bool:
        """Reset the connection. A mere close would leave what waits in the kernel, for minutes."""
        end = self.transport.get_extra_info("socket")
        with suppress(OSError, ValueError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
        return True

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


def _bare(weak_cycle: weakref.ref[RequestResponseCycle]) -> None:
    """What answers one request adds no headers of its own to it."""
    if (cycle := weak_cycle()) is not None:
        cycle.default_headers = []


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
