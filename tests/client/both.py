"""One way to use either client, so that each test runs with both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge.client import AsyncClient, Client
from bridge.events import Event, Position
from bridge.view import View


class Both:
    """One way to use a client, for either kind; what an async one yields is collected."""

    def __init__(self, kind: str) -> None:
        self._async = kind == "async"

    async def events(
        self, url: str, task_id: str = "job", *, after: Position | str | None = None, **options: Any
    ) -> list[tuple[Position, Event]]:
        """All events to the end."""
        if self._async:
            async with AsyncClient(url, **options) as client:
                return [one async for one in client.events(task_id, after=after)]
        with Client(url, **options) as client:
            return list(client.events(task_id, after=after))

    async def follow(
        self,
        url: str,
        task_id: str,
        look: Callable[[View], None],
        *,
        after: Position | str | None = None,
        **options: Any,
    ) -> None:
        """`look` at each view that `follow` yields."""
        if self._async:
            async with AsyncClient(url, **options) as client:
                async for view in client.follow(task_id, after=after):
                    look(view)
            return
        with Client(url, **options) as client:
            for view in client.follow(task_id, after=after):
                look(view)

    async def texts(self, url: str, **options: Any) -> list[str]:
        """The text of each view that `follow` yields."""
        texts: list[str] = []
        await self.follow(url, "job", lambda view: texts.append(view.text), **options)
        return texts

    async def ask(self, url: str, what: str, task_id: str = "job", **options: Any) -> dict[str, Any]:
        """`status` or `cancel`."""
        if self._async:
            async with AsyncClient(url, **options) as client:
                answer: dict[str, Any] = await getattr(client, what)(task_id)
                return answer
        with Client(url, **options) as client:
            asked: dict[str, Any] = getattr(client, what)(task_id)
            return asked
