"""The client's end of a connection: uvicorn's protocol as the `Connection` of its requests.

- `unsent` tells how much waits for the client, in the kernel too. Who never reads, and who is gone without a
  word, gives himself away by it: it doesn't shrink. `cut` resets the connection. uvicorn itself closes in
  order, which waits for the client to take what is buffered: one that takes nothing would be kept for ever,
  with its buffer. That goes, too, for one that doesn't take the rest of its answer.
- `BARE` in the scope keeps an answer free of headers of ours, where it is somebody else's.
- When it is over, nothing of it refers to anything else of it: it goes at once, and doesn't wait for the
  garbage collector (`server/__init__.py`). While it lasts it takes little room (`flow.py`).
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
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bridge.gateway.connection import BARE, EXTENSION
from bridge.gateway.server.flow import Flag, Flow, Pipeline
from bridge.settings import Settings

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


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 over httptools, with the additions above."""

    settings: Settings
    """The same for all connections of a server."""

    # Instances share the keys of their dicts up to thirty; without slots each would be a KB larger.
    __slots__ = ("_answered", "_gone", "_tell")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Called by uvicorn's server, with what its protocols take."""
        super().__init__(*args, **kwargs)
        self.pipeline = Pipeline()  # type: ignore[assignment] # a list that does what uvicorn asks of a deque
        self._answered: RequestResponseCycle | None = None
        """Of the request that was begun last. What uvicorn calls `cycle` may still wait behind it."""
        self._tell: Callable[[], None] | None = None
        self._gone = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Somebody connected."""
        super().connection_made(transport)
        self.flow = Flow(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for whatever reason."""
        super().connection_lost(exc)
        self._say_gone()
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        self._answered = None
        self.cycle = None  # type: ignore[assignment] # as uvicorn has it before the first request
        self.scope = None  # type: ignore[assignment] # likewise

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self}  # type: ignore[dict-item] # ours, no dict

    def on_headers_complete(self) -> None:
        """The request is known, and its answer begins or waits for its turn."""
        super().on_headers_complete()
        self.cycle.message_event = Flag()  # type: ignore[assignment] # as an event
        if self.settings.upstream:
            # A weak reference: the cycle holds the scope.
            bare = partial(_bare, weakref.ref(self.cycle))
            self.scope["extensions"][BARE] = bare  # type: ignore[assignment] # ours, no dict

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin an answer."""
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    @property
    def _answering(self) -> bool:
        """Whether an answer is under way, or still to be given."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

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


def _bare(weak_cycle: weakref.ref[RequestResponseCycle]) -> None:
    """What answers one request adds no headers of its own to it."""
    if (cycle := weak_cycle()) is not None:
        cycle.default_headers = []
