"""A task's views, as a test tells them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from typing import Any

from bridge.events import Position, State
from bridge.view import View


class Feed:
    """`tell` folds events into the view, and hands it on; it ends with the task."""

    def __init__(self, task_id: str = "job-1") -> None:
        self.view = View(task_id)
        self._seq = itertools.count(1)
        self._queue: asyncio.Queue[View | Exception] = asyncio.Queue()
        self.tell(State("running", 1))

    def tell(self, *events: Any) -> None:
        """What happened."""
        for event in events:
            self.view.apply(Position(1, next(self._seq)), event)
            self._queue.put_nowait(self.view)

    def fail(self, error: Exception) -> None:
        """The source of the views breaks."""
        self._queue.put_nowait(error)

    async def views(self) -> AsyncGenerator[View, None]:
        """All that was told, and will be."""
        while True:
            one = await self._queue.get()
            if isinstance(one, Exception):
                raise one
            yield one
            if one.ended and self._queue.empty():
                return
