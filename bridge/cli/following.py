"""A task's views from the gateway, for the commands that hand them on to a sink."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Final

from bridge import ticket
from bridge.client import AsyncClient
from bridge.settings import Settings
from bridge.view import View

PATIENCE_SECONDS: Final = 600.0
"""So long a gateway may be away that was there."""


def client_for(task_id: str, settings: Settings) -> AsyncClient:
    """A client that may read this task: with the ticket that this process was given, or its own."""
    own = partial(ticket, task_id, settings=settings) if settings.ticket_keys else None
    return AsyncClient(settings.gateway_url, ticket=settings.ticket or own, patience_seconds=PATIENCE_SECONDS)


async def follow(task_id: str, settings: Settings) -> AsyncGenerator[View, None]:
    """The task's views to its end. Raises `ClientError`."""
    async with client_for(task_id, settings) as client, aclosing(client.follow(task_id)) as views:
        async for view in views:
            yield view
