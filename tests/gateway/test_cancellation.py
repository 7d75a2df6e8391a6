"""The hub ends when it is told to, whatever it is doing at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from bridge.gateway.hub import Hub
from bridge.gateway.status import PollFollower
from bridge.settings import Settings
from tests.waiting import eventually_async


def audit(hub: Hub) -> None:
    """Let a round of the audit begin."""
    hub.up()


def read(hub: Hub) -> None:
    """Let a task be subscribed and read."""
    with hub.attach("job-1", PollFollower()):
        pass


@pytest.mark.parametrize("work", [audit, read])
async def test_it_ends_at_every_step(redis_url: str, work: Callable[[Hub], None]) -> None:
    """A cancellation is obeyed at every step of the event loop, also where redis-py is sending."""
    for steps in range(20):
        hub = Hub(Settings(redis_url=redis_url))
        running = asyncio.create_task(hub.run())
        await eventually_async(lambda: hub.ready)  # noqa: B023 (called before the next turn)
        work(hub)
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        await eventually_async(running.done)


async def test_it_ends_while_it_connects(redis_url: str) -> None:
    """The same holds before the link is up."""
    for steps in range(60):
        running = asyncio.create_task(Hub(Settings(redis_url=redis_url)).run())
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        await eventually_async(running.done)
