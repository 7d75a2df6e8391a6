"""The gateway, as this application asks it: with a ticket for one task of one user, made anew each time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import httpx

import bridge
from assistant.config import Config
from assistant.conversations import Generation
from bridge.client import AsyncClient

TICKET_SECONDS: Final = 900
"""A browser's ticket; a stream that has begun goes on after it."""
OWN_TICKET_SECONDS: Final = 60
AWAY_SECONDS: Final = 3.0
"""A gateway that is away for so long isn't waited for: meanwhile the answer may be in the database."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """`http` is shared by all that is asked and followed, and without a limit on its connections."""

    config: Config
    http: httpx.AsyncClient

    async def status(self, generation: Generation) -> dict[str, Any]:
        """The task's view. Raises `bridge.errors.ClientError`, by kind."""
        return await self._client(generation).status(generation.task_id)

    async def cancel(self, generation: Generation) -> None:
        """Ask its worker to stop. Raises `bridge.errors.ClientError`, by kind."""
        await self._client(generation).cancel(generation.task_id)

    async def follow(self, generation: Generation) -> AsyncGenerator[dict[str, Any], None]:
        """Each view of it, to its end."""
        async with aclosing(self._client(generation).follow(generation.task_id)) as views:
            async for view in views:
                yield view.as_dict()

    def links(self, generation: Generation, *, streaming: bool) -> dict[str, str | None]:
        """What a browser needs to watch: absolute URLs, and a ticket for them."""
        task = f"{self.config.gateway_url}/tasks/{generation.task_id}"
        return {
            "status": f"{task}/status",
            "events": f"{task}/events" if streaming else None,
            "ticket": _ticket(generation, TICKET_SECONDS),
        }

    def _client(self, generation: Generation) -> AsyncClient:
        return AsyncClient(
            self.config.internal_gateway_url,
            ticket=lambda: _ticket(generation, OWN_TICKET_SECONDS),
            http=self.http,
            patience_seconds=AWAY_SECONDS,
        )


def _ticket(generation: Generation, seconds: float) -> str:
    return bridge.ticket(generation.task_id, ttl=seconds, actions=("read", "cancel"), owner=generation.owner)
