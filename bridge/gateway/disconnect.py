"""Who tells that a client is gone: `send` says nothing of it, only `receive` does.

So for as long as an answer is under way that nobody knows the end of, one task does nothing but receive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from starlette.types import Receive


class Watched(Protocol):
    """Somebody who wants to know that a client is gone."""

    def disconnected(self) -> None:
        """The client is gone."""


@asynccontextmanager
async def watching(receive: Receive, follower: Watched) -> AsyncIterator[asyncio.Task[None]]:
    """For the length of the block, a task tells the follower when its client is gone."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        follower.disconnected()

    task = asyncio.create_task(watch(), name="bridge disconnect watch")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
