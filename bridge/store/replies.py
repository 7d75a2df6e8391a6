"""What Redis sends over a connection, handed over as it comes.

redis-py makes the connection (addresses, TLS, credentials and Sentinels are its business) and sends over it.
But its way of reading wakes a task for each piece that comes, and goes through four coroutines for each
reply. So the transport is given another protocol, which feeds the same parser, hiredis, and hands over all
the replies of a piece in one go, without any task.

Rules
-----
1. Only for a connection on which all that was sent is answered: nothing may wait in redis-py's own buffer.
2. From then on nobody reads with redis-py. It goes on writing, and closes the connection as ever: its
   protocol is told all but the data.
3. Where redis-py keeps the transport is its own affair, and `_transport` the only place that knows. Where
   it finds none, redis-py reads.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final

import hiredis
from redis.exceptions import InvalidResponse, ResponseError

from bridge.errors import LinkDown

_INCOMPLETE: Final = object()

Take = Callable[[list[Any]], None]
"""Gets the replies that came together: bytes in lists, an error as a `RedisError`. What it raises ends the
reading.
"""


async def read_replies(connection: Any, take: Take) -> None:
    """Hand over all that comes. Ends only by raising: what `take` did, or when the connection is gone
    `OSError`, `RedisError` or `LinkDown`.
    """
    transport = _transport(connection)
    if transport is None:
        while True:
            take([await connection.read_response(disable_decoding=True, timeout=math.inf)])
    replies = _Replies(transport.get_protocol(), take)
    transport.set_protocol(replies)
    # A connection that was lost before is not told of to another protocol.
    if transport.is_closing():
        raise LinkDown("the connection is closed")
    await replies.over


def _transport(connection: Any) -> asyncio.Transport | None:
    """Rule 3."""
    return getattr(getattr(connection, "_writer", None), "transport", None)


class _Replies(asyncio.Protocol):
    """Takes the place of redis-py's protocol. `over` never has a result, only why it is over."""

    def __init__(self, before: Any, take: Take) -> None:
        self._before = before
        self._take = take
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=ResponseError, notEnoughData=_INCOMPLETE
        )
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """A piece: some replies, and perhaps a part of one."""
        if self.over.done():
            return
        gets, replies = self._reader.gets, list[Any]()
        try:
            self._reader.feed(data)
            while (reply := gets()) is not _INCOMPLETE:
                replies.append(reply)
            if replies:
                self._take(replies)
        except Exception as error:
            self._end(error)

    def eof_received(self) -> bool | None:
        """Redis says no more; redis-py's answer decides whether the connection is closed at once."""
        self._end(LinkDown("Redis has closed the connection"))
        closes: bool | None = self._before.eof_received()
        return closes

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for whatever reason."""
        self._end(exc or LinkDown("the connection is closed"))
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        """Redis takes no more for now."""
        self._before.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._before.resume_writing()

    def _end(self, why: Exception) -> None:
        if not self.over.done():
            self.over.set_exception(why)
            self.over.exception()  # seen: perhaps nobody waits for it any more
