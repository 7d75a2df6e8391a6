"""The newest view of a task, for a sink that is slower than the task.

Views are taken as fast as they come, so that nobody in front has to keep them; of those that came while the
sink was busy, only the last is left. Nothing is lost by that: a view is the whole task.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable
from types import TracebackType
from typing import Self

from bridge.view import View


class Newest:
    """Reads `views` in the background, for as long as its `async with` block lasts; leaving it cancels them.

    `view` is the newest, or None before the first. It may be one object that grows.
    """

    def __init__(self, views: AsyncIterable[View]) -> None:
        self.view: View | None = None
        self._views = views
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def changed(self, seconds: float = math.inf) -> bool:
        """Wait until there is something newer than at the last call, at most `seconds`; whether there is.

        Once the views are `over` it waits for nothing but the time. Raises what their source raises.
        """
        assert self._reading is not None, "use it in an `async with` block"
        if self.over:
            self._reading.result()
            await asyncio.sleep(seconds if seconds < math.inf else 0)
            return False
        waiter = asyncio.create_task(self._changed.wait())
        try:
            timeout = seconds if seconds < math.inf else None
            both = (waiter, self._reading)
            await asyncio.wait(both, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        if not self._changed.is_set() and self._reading.done():
            self._reading.result()
        changed = self._changed.is_set()
        self._changed.clear()
        return changed

    async def every(self, seconds: float) -> AsyncGenerator[View, None]:
        """The newest view, each time there is one, at most every so many seconds; and the last."""
        while not self.over:
            if await self.changed() and self.view is not None:
                yield self.view
                await asyncio.sleep(seconds)
        await self.changed(0)  # raises what ended the views, if it wasn't their end

    @property
    def over(self) -> bool:
        """Whether no further view will come."""
        return self._reading is not None and self._reading.done() and not self._changed.is_set()

    async def _read(self) -> None:
        async for view in self._views:
            self.view = view
            self._changed.set()

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._reading is not None
        self._reading.cancel()
        await asyncio.wait((self._reading,))
        if not self._reading.cancelled():
            self._reading.exception()  # `changed` has raised it, or nobody wanted to know any more
