"""Who tells that a client is gone: `send` says nothing of it.

Our own server's protocol does. Under other servers only `receive` knows: so for as long as an answer is under
way that nobody knows the end of, one task does nothing but receive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

from starlette.types import Receive

from bridge.gateway.connection import Connection

_CUT_SECONDS: Final = 1.0


class Watched(Protocol):
    """Somebody who wants to know that a client is gone."""

    def disconnected(self) -> None:
        """The client is gone."""


@asynccontextmanager
async def watching(connection: Connection, receive: Receive, follower: Watched) -> AsyncIterator[None]:
    """For the length of the block, the follower is told when its client is gone."""
    if connection.when_gone(follower.disconnected):
        yield
        return

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        follower.disconnected()

    task = asyncio.create_task(watch(), name="bridge disconnect watch")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def cut_off(connection: Connection) -> None:
    """Reset the connection; when this returns the server knows, and expects no more of the answer."""
    gone = asyncio.Event()
    if connection.when_gone(gone.set) and connection.cut():
        with suppress(TimeoutError):
            async with asyncio.timeout(_CUT_SECONDS):
                await gone.wait()
