"""What stands behind the assistant's web application, in this process: a gateway that asks for tickets, and
workers that are the test itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import httpx
import redis
from assistant.answers import Answers
from assistant.asking import Asked
from assistant.gateway import Gateway
from assistant.keeping import Sweeper

import bridge
from bridge.worker import process
from tests.examples.assistant.backstage import Backstage
from tests.gateway.running import Running, running

KEY = "a-key-of-thirty-two-bytes-or-more"


@dataclass
class Behind:
    """A gateway, and who asks it."""

    redis_url: str
    running: Running
    answers: Answers
    sweeper: Sweeper

    @classmethod
    @asynccontextmanager
    async def of(cls, stage: Backstage, redis_url: str) -> AsyncIterator[Behind]:
        """Behind that stage."""
        bridge.configure(bridge.Settings(redis_url=redis_url, ticket_keys=KEY))
        try:
            with running(redis_url, auth="jwt", ticket_keys=KEY) as one:
                async with httpx.AsyncClient() as http:
                    gateway = Gateway(replace(stage.config, internal_gateway_url=one.url), http)
                    database = stage.database
                    yield cls(redis_url, one, Answers(database, gateway), Sweeper(database, gateway))
        finally:
            await asyncio.to_thread(process.reset)

    @contextmanager
    def task(self, asked: Asked) -> Iterator[bridge.Task]:
        """A worker answers it, and stores nothing."""
        generation = asked.generation
        bridge.create_task(generation.task_id, owner=generation.owner)
        with bridge.task(generation.task_id) as task:
            yield task

    def forget(self, asked: Asked) -> None:
        """Redis has lost all that it knew of its task."""
        with redis.Redis.from_url(self.redis_url) as client:
            client.delete(*client.keys(f"*{asked.generation.task_id}*"))
