"""Who tells that a client is gone: `send` says nothing of it.

Our own server's protocol does. Under other servers only `receive` knows: so for as long as an answer is under
way that nobody knows the end of, one task does nothing but receive.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, Protocol

from starlette.types import Receive

from bridge.gateway.connection import Connection

_CUT_SECONDS: Final = 1.0


class Watched(Protocol):
    """Somebody who wants to know that a client is gone."""

    def disconnected(self) -> None:
        """The client is gone."""


class Watching:
    """For the length of an `async with` block, the follower is told when its client is gone."""

    __slots__ = ("_connection", "_follower", "_receive", "_task")

    def __init__(self, connection: Connection, receive: Receive, follower: Watched) -> None:
        self._connection = connection
        self._receive = receive
        self._follower = follower
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        """Begin."""
        if not self._connection.when_gone(self._follower.disconnected):
            self._task = asyncio.create_task(self._watch(), name="bridge disconnect watch")

    async def __aexit__(self, *_: object) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._follower.disconnected()


async def cut_off(connection: Connection) -> None:
    """Reset the connection; when this returns the server knows, and expects no more of the answer."""
    gone = asyncio.Event()
    if connection.when_gone(gone.set) and connection.cut():
        with suppress(TimeoutError):
            async with asyncio.timeout(_CUT_SECONDS):
                await gone.wait()
