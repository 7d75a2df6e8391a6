"""Many small questions in one round trip."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.exceptions import ResponseError

from bridge.store.bulk import ask_all
from tests.waiting import DEADLINE_SECONDS


async def test_one_error_spoils_no_connection(redis_url: str) -> None:
    """It stands in its place, all answers are read, and the next questions go over the same connection."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        pool: Any = client.connection_pool
        before = await ask_all(pool, [("CLIENT", "ID"), ("ECHO", "a")], DEADLINE_SECONDS)
        one, error, other = await ask_all(pool, [("ECHO", "a"), ("GET",), ("ECHO", "b")], DEADLINE_SECONDS)
        assert (one, other) == (b"a", b"b")
        assert isinstance(error, ResponseError)
        assert "wrong number" in str(error)
        assert await ask_all(pool, [("CLIENT", "ID"), ("ECHO", "c")], DEADLINE_SECONDS) == [before[0], b"c"]


async def test_an_answer_that_comes_too_late_is_nobody_s(redis_url: str, redis_client: redis.Redis) -> None:
    """All together have so many seconds; what comes after them answers no later question."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        pool: Any = client.connection_pool
        with pytest.raises(TimeoutError):
            await ask_all(pool, [("BLPOP", "late", 0)], 0.01)
        asking = asyncio.create_task(ask_all(pool, [("ECHO", "mine")], DEADLINE_SECONDS))
        await asyncio.sleep(0)
        redis_client.rpush("late", "x")
        assert await asking == [b"mine"]
        redis_client.delete("late")
