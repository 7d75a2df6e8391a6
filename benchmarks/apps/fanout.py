"""One Redis subscription per process and one queue per viewer, as such apps are usually written."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import redis.asyncio

from benchmarks.feeds import CHANNEL


class Fanout:
    """Hands each message to the queues of its task.

    The queues have no limit, as usual: a limit would drop text, which here counts as failure.
    """

    def __init__(self) -> None:
        self._queues: dict[str, set[asyncio.Queue[str]]] = defaultdict(set)

    @contextmanager
    def viewer(self, task: str) -> Iterator[asyncio.Queue[str]]:
        """The queue of one viewer, as long as the block lasts."""
        queue: asyncio.Queue[str] = asyncio.Queue()
        channel = CHANNEL.format(task=task)
        self._queues[channel].add(queue)
        try:
            yield queue
        finally:
            self._queues[channel].discard(queue)

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[None]:
        """Listen to Redis while the app lives."""
        client: Any = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
        async with client, client.pubsub() as pubsub:
            await pubsub.psubscribe(CHANNEL.format(task="*"))
            listening = asyncio.create_task(self._listen(pubsub))
            yield
            listening.cancel()

    async def _listen(self, pubsub: Any) -> None:
        async for message in pubsub.listen():
            if message["type"] == "pmessage":
                for queue in self._queues[message["channel"]]:
                    queue.put_nowait(message["data"])
